/* Text for people about how far a run is. */
#include "report/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "-" where it cannot be told: unknown, negative or more than 300 years. */
void xkd_format_duration(char *out, size_t size, double seconds)
{
    if (!(seconds >= 0) || seconds > 1e10) {
        snprintf(out, size, "-");
        return;
    }
    long long s = llrint(seconds), minutes = s / 60, hours = s / 3600;
    if (hours >= 48)
        snprintf(out, size, "%lld d %02lld:%02lld", hours / 24, hours % 24, minutes % 60);
    else if (hours > 0)
        snprintf(out, size, "%lld:%02lld:%02lld", hours, minutes % 60, s % 60);
    else
        snprintf(out, size, "%lld:%02lld", minutes, s % 60);
}

/* 1000-based prefixes. The count is a double, as totals of multiply-adds pass 2^63. */
void xkd_format_count(char *out, size_t size, double count, const char *unit)
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T", "P"};
    int p = 0;
    for (; count >= 1000 && p < 5; p++) count /= 1000;
    const char *space = *prefixes[p] || *unit ? " " : "";
    snprintf(out, size, p ? "%.1f%s%s%s" : "%.0f%s%s%s", count, space, prefixes[p], unit);
}

const char *xkd_format_loss(char *out, size_t size, double loss)
{
    if (isnan(loss))
        snprintf(out, size, "-");
    else
        snprintf(out, size, "%.4f", loss);
    return out;
}

/* start is where this call began; the rest is estimated from its speed alone. */
void xkd_progress_line(char *out, size_t size, const char *title, int64_t start, int64_t done, int64_t total,
                       double seconds, const char *tail)
{
    enum { CELLS = 12 };
    char bar[CELLS + 1], eta[32] = "-";
    double share = total > 0 ? (double)done / (double)total : 0;
    int filled = (int)(share * CELLS);
    for (int i = 0; i < CELLS; i++) bar[i] = i < filled ? '=' : i == filled ? '>' : ' ';
    bar[CELLS] = 0;
    if (done > start) xkd_format_duration(eta, sizeof eta, seconds / (double)(done - start) * (double)(total - done));
    snprintf(out, size, "%s [%s] %3.0f %% %lld/%lld  ETA %s  %s", title, bar, 100 * share, (long long)done,
             (long long)total, eta, tail);
}
