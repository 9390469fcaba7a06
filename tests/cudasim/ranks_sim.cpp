/* Exchange between the simulated devices of several processes of one machine: sockets whose names follow from the meeting's. Like
 * all work of a stream it is done late, and a device that waits for another one waits until somebody asks how far it is. */
#include "backend/cuda/device.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "fibers.h"

/* What remains of one send or receive. */
struct transfer {
    int peer;
    bool out;
    char *data;
    size_t bytes, moved;
};

/* Tasks on a stream may be called behind dev_ranks_leave: they hold the connections too, and find them closed. */
struct meeting {
    int rank, size, listener = -1;
    char name[33];
    bool met = false, left = false;
    std::vector<int> sockets; /* by rank; -1 for this one */
    ~meeting()
    {
        for (int s : sockets)
            if (s >= 0) close(s);
        if (listener >= 0) close(listener);
    }
};

struct dev_ranks_state {
    std::shared_ptr<meeting> with;
    std::vector<transfer> group; /* of the exchange that is being asked for */
    sim::stream *on = nullptr;
};

enum { NO_MEETING = DEV_RANKS_ERRORS, NO_NAME };

const char *dev_ranks_error_text(int error)
{
    return error == NO_NAME ? "the simulation makes no name" : "simulated ranks did not meet";
}

/* As of the library that it stands for: 2.28. */
int dev_ranks_version(void)
{
    return getenv("XKD_CUDASIM_ALONE") ? 0 : 2280;
}

int dev_ranks_name(char name[DEV_RANKS_NAME])
{
    unsigned char random[16];
    if (getenv("XKD_CUDASIM_NAMELESS")) return NO_NAME; /* as NCCL where it finds no network */
    if (getrandom(random, sizeof random, 0) != sizeof random) return NO_NAME;
    for (size_t i = 0; i < sizeof random; i++) snprintf(name + 2 * i, 3, "%02x", random[i]);
    return 0;
}

/* In the abstract namespace: nothing of it is left on a disk. */
static socklen_t address_of(struct sockaddr_un *address, const char *name, int rank)
{
    *address = {};
    address->sun_family = AF_UNIX;
    int length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "xkd-sim-%.32s-%d", name, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

/* To a rank that listens already. */
static bool call(meeting *m, int rank)
{
    struct sockaddr_un address;
    socklen_t length = address_of(&address, m->name, rank);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s >= 0 && connect(s, (struct sockaddr *)&address, length) == 0 &&
        write(s, &m->rank, sizeof m->rank) == sizeof m->rank) {
        m->sockets[(size_t)rank] = s;
        return true;
    }
    if (s >= 0) close(s);
    return false;
}

static void answer(meeting *m)
{
    int rank = -1, s = accept4(m->listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (s < 0) return;
    if (read(s, &rank, sizeof rank) != sizeof rank || rank <= m->rank || rank >= m->size ||
        m->sockets[(size_t)rank] >= 0) {
        close(s);
        return;
    }
    m->sockets[(size_t)rank] = s;
}

/* What XKD_CUDASIM_MEETING says of how a meeting ends: "fail", as NCCL where it finds no way to the others; "die", with the process;
 * "hang", in a call that does not return; "never", in progress for ever. */
static bool meets(const char *how)
{
    const char *wanted = getenv("XKD_CUDASIM_MEETING");
    return wanted && strcmp(wanted, how) == 0;
}

int dev_ranks_meet(dev_ranks *out, const char name[DEV_RANKS_NAME], int rank, int size)
{
    auto m = std::make_shared<meeting>();
    struct sockaddr_un address;
    socklen_t length = address_of(&address, name, rank);
    *out = nullptr;
    m->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (m->listener < 0 || bind(m->listener, (struct sockaddr *)&address, length) != 0 ||
        listen(m->listener, size) != 0)
        return NO_MEETING;
    m->rank = rank;
    m->size = size;
    snprintf(m->name, sizeof m->name, "%.32s", name);
    m->sockets.assign((size_t)size, -1);
    *out = new dev_ranks_state();
    (*out)->with = m;
    return 0;
}

/* Those of lower rank are called, those of higher rank call. */
int dev_ranks_ready(dev_ranks ranks, bool *ready)
{
    meeting *m = ranks->with.get();
    *ready = true;
    if (m->met) return 0;
    if (meets("fail")) return NO_MEETING;
    if (meets("die")) raise(SIGKILL);
    while (meets("hang")) pause();
    for (int r = 0; r < m->rank; r++)
        if (m->sockets[(size_t)r] < 0) *ready = call(m, r) && *ready;
    answer(m);
    for (int r = m->rank + 1; r < m->size; r++) *ready = *ready && m->sockets[(size_t)r] >= 0;
    *ready = *ready && !meets("never");
    m->met = *ready;
    return 0;
}

int dev_ranks_leave(dev_ranks ranks)
{
    if (!ranks) return 0;
    ranks->with->left = true;
    delete ranks;
    return 0;
}

int dev_exchange_begin(dev_ranks ranks)
{
    ranks->group.clear();
    return 0;
}

static int note(dev_ranks ranks, transfer t, dev_stream stream)
{
    ranks->group.push_back(t);
    ranks->on = (sim::stream *)stream;
    return 0;
}

int dev_send(dev_ranks ranks, const void *from, size_t bytes, int to, dev_stream stream)
{
    return note(ranks, {to, true, (char *)(uintptr_t)from, bytes, 0}, stream);
}

int dev_receive(dev_ranks ranks, void *to, size_t bytes, int from, dev_stream stream)
{
    return note(ranks, {from, false, (char *)to, bytes, 0}, stream);
}

/* As far as it goes without waiting. False: the connection has ended. */
static bool move(const meeting *m, transfer *t)
{
    while (t->moved < t->bytes) {
        int s = m->sockets[(size_t)t->peer];
        ssize_t n = t->out ? send(s, t->data + t->moved, t->bytes - t->moved, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : recv(s, t->data + t->moved, t->bytes - t->moved, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        if (n <= 0) return false;
        t->moved += (size_t)n;
    }
    return true;
}

static int exchange(const meeting *m, std::vector<transfer> *group)
{
    bool done = true;
    if (m->left) return 0;
    for (transfer &t : *group) {
        if (!sim::is_device(t.data, t.bytes, t.out ? "sending" : "receiving")) return sim::FAULT;
        if (!move(m, &t)) {
            sim::note_fault("the device of rank %d has gone", t.peer);
            return sim::FAULT;
        }
        done = done && t.moved == t.bytes;
    }
    if (!done) usleep(100);
    return done ? 0 : sim::PENDING;
}

int dev_exchange_end(dev_ranks ranks)
{
    if (ranks->group.empty()) return 0;
    auto group = std::make_shared<std::vector<transfer>>(std::move(ranks->group));
    auto with = ranks->with;
    ranks->group.clear();
    return sim::put(ranks->on, [=]() { return exchange(with.get(), group.get()); });
}
