/* Sockets with deadlines. All are non-blocking, closed on exec and without delay: what is sent here is waited for. */
#include "dist/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* At most a second, so that a wait is seen to be alive. */
static bool wait_for(int fd, short events, double deadline)
{
    for (;;) {
        double left = deadline - xkd_now();
        if (left <= 0) return false;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left < 1 ? (int)(1000 * left) + 1 : 1000);
        xkd_tick();
        if (n > 0) return true;
        if (n < 0 && errno != EINTR) return false;
    }
}

static int prepare(int fd)
{
    int one = 1;
    if (fd < 0) return fd;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

void xkd_set_port(xkd_address *a, int port)
{
    if (a->address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&a->address)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)&a->address)->sin_port = htons((uint16_t)port);
}

static int port_of(int fd)
{
    xkd_address a = {.length = sizeof a.address};
    if (getsockname(fd, (struct sockaddr *)&a.address, &a.length) != 0) return -1;
    return ntohs(a.address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a.address)->sin6_port
                                                 : ((struct sockaddr_in *)&a.address)->sin_port);
}

/* -1 and errno where it cannot be. */
static int try_listen(const xkd_address *at)
{
    int one = 1, off = 0, fd = socket(at->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (at->address.ss_family == AF_INET6) (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (const struct sockaddr *)&at->address, at->length) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
    int fault = errno;
    close(fd);
    errno = fault;
    return -1;
}

static xkd_status listening(xkd_context *cx, int fd, int asked, int *out, int *port)
{
    if (fd < 0)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "cannot listen on port %d: %s (MASTER_PORT must be free on rank 0's machine)", asked,
                        strerror(errno));
    *out = prepare(fd);
    *port = port_of(fd);
    return XKD_OK;
}

xkd_status xkd_listen(xkd_context *cx, const xkd_address *at, int *out, int *port)
{
    return listening(cx, try_listen(at), 0, out, port);
}

/* One socket for both families where the machine has version 6. */
xkd_status xkd_listen_everywhere(xkd_context *cx, int port, int *out, int *got)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    xkd_address at = {.length = sizeof six};
    memcpy(&at.address, &six, sizeof six);
    int fd = try_listen(&at);
    if (fd < 0 && errno != EADDRINUSE) {
        at.length = sizeof four;
        memcpy(&at.address, &four, sizeof four);
        fd = try_listen(&at);
    }
    return listening(cx, fd, port, out, got);
}

int xkd_accept(int listener, double deadline)
{
    while (wait_for(listener, POLLIN, deadline)) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) return prepare(fd);
    }
    return -1;
}

static int connect_once(const struct sockaddr *to, socklen_t length, double deadline)
{
    int fault = 0, fd = prepare(socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    socklen_t size = sizeof fault;
    if (fd < 0) return -1;
    if (connect(fd, to, length) == 0) return fd;
    if (errno == EINPROGRESS && wait_for(fd, POLLOUT, deadline) &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &size) == 0 && fault == 0)
        return fd;
    close(fd);
    return -1;
}

/* A machine that does not answer at all takes its time to say so: an attempt gets ten seconds. */
static double attempt(double deadline)
{
    double most = xkd_now() + 10;
    return deadline < most ? deadline : most;
}

static void rest_briefly(void)
{
    xkd_tick();
    usleep(50000);
}

int xkd_connect_to(const xkd_address *to, double deadline)
{
    do {
        int fd = connect_once((const struct sockaddr *)&to->address, to->length, attempt(deadline));
        if (fd >= 0) return fd;
        rest_briefly();
    } while (xkd_now() < deadline);
    return -1;
}

/* One try at each of the names. *fault: what is wrong with the last of them, NULL if nothing is. */
static int connect_to_any(const char *hosts, const char *service, double deadline, const char **fault)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char host[256];
    int fd = -1;
    for (const char *at = hosts + strspn(hosts, " "); *at && fd < 0; at += strspn(at, " ")) {
        int length = (int)strcspn(at, " ");
        snprintf(host, sizeof host, "%.*s", length, at);
        at += length;
        int code = getaddrinfo(host, service, &hints, &list);
        *fault = code ? gai_strerror(code) : NULL;
        for (const struct addrinfo *a = code ? NULL : list; a && fd < 0; a = a->ai_next)
            fd = connect_once(a->ai_addr, a->ai_addrlen, attempt(deadline));
        if (!code) freeaddrinfo(list);
    }
    return fd;
}

/* Names come up late where machines start together: also an unknown one is tried again. */
xkd_status xkd_connect(xkd_context *cx, const char *hosts, int port, double deadline, int *out)
{
    char service[16];
    const char *fault = NULL;
    snprintf(service, sizeof service, "%d", port);
    do {
        *out = connect_to_any(hosts, service, deadline, &fault);
        if (*out < 0) rest_briefly();
    } while (*out < 0 && xkd_now() < deadline);
    if (*out < 0 && fault) return xkd_fail(cx, XKD_ERR_CONFIG, "cannot find rank 0's machine '%s': %s", hosts, fault);
    return XKD_OK;
}

bool xkd_send_all(int fd, const void *data, int64_t bytes, double deadline)
{
    for (const char *at = data; bytes > 0;) {
        ssize_t n = send(fd, at, (size_t)bytes, MSG_NOSIGNAL);
        if (n > 0) {
            at += n;
            bytes -= n;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR) || !wait_for(fd, POLLOUT, deadline)) {
            return false;
        }
    }
    return true;
}

bool xkd_receive_all(int fd, void *data, int64_t bytes, double deadline)
{
    for (char *at = data; bytes > 0;) {
        ssize_t n = recv(fd, at, (size_t)bytes, 0);
        if (n > 0) {
            at += n;
            bytes -= n;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR) || !wait_for(fd, POLLIN, deadline)) {
            return false;
        }
    }
    return true;
}
