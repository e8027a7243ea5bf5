/* An engine that costs next to nothing: one epoll thread, HTTP/1.1 keep-alive, requests with Content-Length.
 *
 *   engine PORT [REPORT]
 *
 * With REPORT, it writes there, as JSON, how many milliseconds passed between the last answer to a GET (a check
 * of its readiness) and the first POST.
 *
 * A body with "stream":true gets `max_tokens` events, one per `seed` microseconds (0: as fast as they are
 * taken), each chunk a send of its own, then [DONE]. Any other body gets one JSON answer of about 600 bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct client {
    int fd;
    size_t have, room;
    char *data;
    long events_left;
    uint64_t pause_ns, due;
    struct client *next; /* in the list of streams */
};

static int poller;
static struct client *streams;
static char answer[2048], event[1024];
static size_t answer_size, event_size;
static const char stream_head[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
static const char stream_end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void prepare(void) {
    char body[1024], text[512];
    memset(text, 'x', 260);
    text[260] = 0;
    int size = snprintf(body, sizeof body,
                        "{\"id\":\"chatcmpl-0001\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"mock\","
                        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
                        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":200,\"total_tokens\":260,"
                        "\"completion_tokens\":60}}",
                        text);
    answer_size = (size_t)snprintf(answer, sizeof answer,
                                   "HTTP/1.1 200 OK\r\nserver: engine\r\ncontent-type: application/json\r\n"
                                   "content-length: %d\r\n\r\n%s",
                                   size, body);
    size = snprintf(body, sizeof body,
                    "data: {\"id\":\"chatcmpl-0001\",\"object\":\"chat.completion.chunk\",\"created\":1,"
                    "\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},"
                    "\"finish_reason\":null}]}\n\n");
    event_size = (size_t)snprintf(event, sizeof event, "%x\r\n%s\r\n", (unsigned)size, body);
}

static void drop(struct client *c) {
    for (struct client **p = &streams; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            break;
        }
    close(c->fd);
    free(c->data);
    free(c);
}

/* All of it or nothing: what a slow reader does not take at once is given up. */
static int put(struct client *c, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) continue;
        if (sent < 0) return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static long number_after(const char *data, size_t size, const char *key, long otherwise) {
    const char *found = memmem(data, size, key, strlen(key));
    return found ? atol(found + strlen(key)) : otherwise;
}

static const char *report;
static uint64_t checked;

static void note(int get) {
    if (get) {
        checked = now_ns();
    } else if (report && checked) {
        FILE *out = fopen(report, "w");
        if (out) {
            fprintf(out, "{\"first_after_ms\": %.3f}\n", (double)(now_ns() - checked) / 1e6);
            fclose(out);
        }
        report = NULL;
    }
}

static int serve(struct client *c, const char *body, size_t size) {
    size_t looked = size > 4096 ? 4096 : size;
    if (!memmem(body, looked, "\"stream\":true", 13)) return put(c, answer, answer_size);
    c->events_left = number_after(body, looked, "\"max_tokens\":", 100);
    c->pause_ns = (uint64_t)number_after(body, looked, "\"seed\":", 0) * 1000;
    c->due = now_ns();
    c->next = streams;
    streams = c;
    return put(c, stream_head, sizeof stream_head - 1);
}

static void readable(struct client *c) {
    if (c->room - c->have < 65536) c->data = realloc(c->data, c->room = c->room * 2 + 131072);
    ssize_t got = recv(c->fd, c->data + c->have, c->room - c->have - 1, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        drop(c);
        return;
    }
    c->have += (size_t)got;
    c->data[c->have] = 0;
    char *end = memmem(c->data, c->have, "\r\n\r\n", 4);
    if (!end) return;
    size_t head = (size_t)(end - c->data) + 4;
    const char *length = strcasestr(c->data, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (c->have < head + body) return;
    c->have = 0;
    note(c->data[0] == 'G');
    if (serve(c, c->data + head, body) < 0) drop(c);
}

/* One event for every stream that is due; returns milliseconds until the next, -1 for never. */
static int advance(void) {
    uint64_t now = now_ns(), next = UINT64_MAX;
    struct client *c = streams;
    while (c) {
        struct client *after = c->next;
        if (c->due <= now) {
            int over = c->events_left-- <= 0;
            int failed = over ? put(c, stream_end, sizeof stream_end - 1) : put(c, event, event_size);
            if (failed) {
                drop(c);
                c = after;
                continue;
            }
            if (over) {
                for (struct client **p = &streams; *p; p = &(*p)->next)
                    if (*p == c) {
                        *p = c->next;
                        break;
                    }
                c = after;
                continue;
            }
            c->due += c->pause_ns;
        }
        if (c->due < next) next = c->due;
        c = after;
    }
    if (next == UINT64_MAX) return -1;
    now = now_ns();
    return next <= now ? 0 : (int)((next - now) / 1000000);
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    if (count > 2) report = arguments[2];
    signal(SIGPIPE, SIG_IGN);
    prepare();
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("engine: listen");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        int found = epoll_wait(poller, ready, 256, advance());
        for (int i = 0; i < found; i++) {
            if (ready[i].data.ptr) {
                readable(ready[i].data.ptr);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct client *c = calloc(1, sizeof *c);
                c->fd = fd;
                interest.data.ptr = c;
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest);
            }
        }
    }
}
