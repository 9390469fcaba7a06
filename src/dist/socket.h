/* Sockets with deadlines; every wait counts as progress (base/clock.h). */
#ifndef XKD_DIST_SOCKET_H
#define XKD_DIST_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/status.h"

typedef struct {
    struct sockaddr_storage address;
    socklen_t length;
} xkd_address;

/* A socket that listens on `at`, whose port may be 0: any; *port is what it has become. */
xkd_status xkd_listen(xkd_context *cx, const xkd_address *at, int *out, int *port);
/* The same on all interfaces. */
xkd_status xkd_listen_everywhere(xkd_context *cx, int port, int *out, int *got);

/* The next connection before `deadline` (xkd_now); -1: none came. */
int xkd_accept(int listener, double deadline);

/* Connects to a port of one of several hosts, names with blanks between them, again and again until `deadline`. -1: nobody
 * answered. XKD_ERR_CONFIG where there is no such name. */
xkd_status xkd_connect(xkd_context *cx, const char *hosts, int port, double deadline, int *out);
int xkd_connect_to(const xkd_address *to, double deadline);

/* All bytes before `deadline`; false where the connection ended or time was up. */
bool xkd_send_all(int socket, const void *data, int64_t bytes, double deadline);
bool xkd_receive_all(int socket, void *data, int64_t bytes, double deadline);

void xkd_set_port(xkd_address *address, int port);

#endif
