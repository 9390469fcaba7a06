/* Stretches of operations that are asked for again and again, kept as graphs: the host then asks once for a thousand launches.
 *
 * The first time a stretch is done launch by launch, in which scratch grows and lists are brought; the second time it is recorded
 * and done as a graph; from then on the graph is launched. A graph keeps what launches were given by value, addresses too: whatever
 * makes an address another's drops all graphs, and they are recorded anew. */
#include <string.h>

#include "state.h"

static void forget(xkd_cuda_stretch *s)
{
    if (s->graph) dev_graph_free(s->graph);
    *s = xkd_cuda_stretch();
}

/* Ends the recording with the graph of what was recorded; NULL after a fault. */
static dev_graph end_recording(xkd_cuda *cuda)
{
    dev_graph graph = NULL;
    cuda->recording = NULL;
    int error = dev_capture_end(cuda->stream, &graph);
    if (cuda_check(cuda->be, error, "recording a graph")) return graph;
    if (graph) dev_graph_free(graph);
    return NULL;
}

static void launch(xkd_cuda *cuda, dev_graph graph)
{
    cuda->asked++;
    cuda_check(cuda->be, dev_graph_launch(graph, cuda->stream), "a graph");
}

void cuda_interrupt(xkd_cuda *cuda)
{
    if (!cuda->recording) return;
    cuda->recording->unfit = true;
    dev_graph part = end_recording(cuda);
    if (!part) return;
    launch(cuda, part);
    cuda_check(cuda->be, cuda_wait_all(cuda), "a graph");
    dev_graph_free(part);
}

/* Graphs may be at work. */
void cuda_drop_graphs(xkd_cuda *cuda)
{
    bool any = false;
    cuda_interrupt(cuda);
    for (int i = 0; i < GRAPHS; i++) any = any || cuda->stretch[i].graph;
    if (any) cuda_check(cuda->be, cuda_wait_all(cuda), "a graph");
    for (int i = 0; i < GRAPHS; i++) {
        xkd_cuda_stretch *s = &cuda->stretch[i];
        if (s->graph) dev_graph_free(s->graph);
        s->graph = NULL;
    }
}

void cuda_forget_stretches(xkd_cuda *cuda)
{
    cuda_drop_graphs(cuda);
    for (int i = 0; i < GRAPHS; i++) forget(&cuda->stretch[i]);
}

/* The stretch of this key; a new one takes a free place, or that of the one that was asked for longest ago. */
static xkd_cuda_stretch *find(xkd_cuda *cuda, const void *key, size_t bytes, bool *known)
{
    xkd_cuda_stretch *oldest = &cuda->stretch[0];
    *known = true;
    for (int i = 0; i < GRAPHS; i++) {
        xkd_cuda_stretch *s = &cuda->stretch[i];
        if (s->bytes == bytes && memcmp(s->key, key, bytes) == 0) return s;
        if (s->used < oldest->used) oldest = s;
    }
    *known = false;
    if (oldest->graph) cuda_check(cuda->be, cuda_wait_all(cuda), "a graph");
    forget(oldest);
    memcpy(oldest->key, key, bytes);
    oldest->bytes = bytes;
    return oldest;
}

/* Operations that are counted by name are asked for one by one. */
bool cuda_repeat(xkd_backend *be, const void *key, int64_t bytes)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    bool known;
    if (be->status != XKD_OK || cuda->counting || cuda->recording || bytes < 1 || bytes > KEY_BYTES) return false;
    xkd_cuda_stretch *s = find(cuda, key, (size_t)bytes, &known);
    s->used = ++cuda->stretches;
    if (s->graph) {
        launch(cuda, s->graph);
        be->products += s->products;
        return true;
    }
    if (known && !s->unfit && cuda_check(be, dev_capture_begin(cuda->stream), "recording a graph")) {
        s->products = -be->products;
        cuda->recording = s;
    }
    return false;
}

void cuda_repeat_end(xkd_backend *be)
{
    xkd_cuda *cuda = (xkd_cuda *)be->cuda;
    xkd_cuda_stretch *s = cuda->recording;
    if (!s) return;
    dev_graph graph = end_recording(cuda);
    s->products += be->products;
    s->graph = graph;
    if (graph && be->status == XKD_OK) launch(cuda, graph);
}
