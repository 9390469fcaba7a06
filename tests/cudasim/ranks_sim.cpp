/* Exchange between the simulated devices of several processes of one machine: sockets whose names follow from the meeting's. Like
 * all work of a stream it is done late, and a device that waits for another one waits until somebody asks how far it is. */
#include "backend/cuda/device.h"

#include <cerrno>
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
    int rank, size;
    bool left = false;
    std::vector<int> sockets; /* by rank; -1 for this one */
    ~meeting()
    {
        for (int s : sockets)
            if (s >= 0) close(s);
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

static bool call(meeting *m, const char *name, int rank)
{
    struct sockaddr_un address;
    socklen_t length = address_of(&address, name, rank);
    for (int tries = 0; tries < 6000; tries++) {
        int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s < 0) return false;
        m->sockets[(size_t)rank] = s;
        if (connect(s, (struct sockaddr *)&address, length) == 0)
            return write(s, &m->rank, sizeof m->rank) == sizeof m->rank;
        close(s);
        m->sockets[(size_t)rank] = -1;
        usleep(10000); /* it does not listen yet */
    }
    return false;
}

static bool answer(meeting *m, int listener)
{
    int rank = -1, s = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (s < 0) return false;
    if (read(s, &rank, sizeof rank) != sizeof rank || rank <= m->rank || rank >= m->size ||
        m->sockets[(size_t)rank] >= 0) {
        close(s);
        return false;
    }
    m->sockets[(size_t)rank] = s;
    return true;
}

int dev_ranks_meet(dev_ranks *out, const char name[DEV_RANKS_NAME], int rank, int size)
{
    auto m = std::make_shared<meeting>();
    struct sockaddr_un address;
    socklen_t length = address_of(&address, name, rank);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool well =
        listener >= 0 && bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, size) == 0;
    m->rank = rank;
    m->size = size;
    m->sockets.assign((size_t)size, -1);
    *out = nullptr;
    for (int r = 0; r < rank && well; r++) well = call(m.get(), name, r);
    for (int r = rank + 1; r < size && well; r++) well = answer(m.get(), listener);
    if (listener >= 0) close(listener);
    if (!well) return NO_MEETING;
    *out = new dev_ranks_state();
    (*out)->with = m;
    return 0;
}

int dev_ranks_leave(dev_ranks ranks)
{
    if (!ranks) return 0;
    ranks->with->left = true;
    delete ranks;
    return 0;
}

int dev_ranks_fault(dev_ranks)
{
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
