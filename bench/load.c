/* A closed loop of keep-alive clients, one thread: each sends a request, reads the whole answer, sends again.
 *
 *   load PORT CONNECTIONS SECONDS json|sse|big [EVENTS PAUSE_MICROSECONDS | BYTES] [MODEL]
 *
 * `big` sends a picture of BYTES in base64 and names the model after it. With 0 SECONDS each connection sends
 * one request.
 *
 * Prints one line of JSON: requests, errors, events, seconds, p50_us, p99_us.
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
    size_t have; /* bytes of the head, or of the tail of a stream */
    long left;   /* of a counted body; -1: chunked; -2: reading the head */
    uint64_t sent;
    char data[65536];
};

static char *request;
static size_t request_size;
static uint64_t requests, errors, events, buckets[200001];
static int port;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void begin(struct client *c) {
    c->have = 0;
    c->left = -2;
    c->sent = now_ns();
    for (size_t done = 0; done < request_size;) {
        ssize_t sent = send(c->fd, request + done, request_size - done, MSG_NOSIGNAL);
        if (sent <= 0) {
            errors++;
            return;
        }
        done += (size_t)sent;
    }
}

static void open_client(struct client *c, int poller) {
    int one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
        perror("load: connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &interest);
}

/* Count events, and look for the end of the last chunk; a few bytes stay for matches across reads. */
static int stream_ended(struct client *c) {
    char *at = c->data, *stop = c->data + c->have, *found;
    while ((found = memmem(at, (size_t)(stop - at), "\"delta\"", 7))) {
        events++;
        at = found + 7;
    }
    int ended = c->have >= 5 && !memcmp(stop - 5, "0\r\n\r\n", 5);
    size_t keep = (size_t)(stop - at) < 6 ? (size_t)(stop - at) : 6;
    memmove(c->data, stop - keep, keep);
    c->have = keep;
    return ended;
}

/* 1 once the answer is whole. */
static int take(struct client *c) {
    if (c->left == -2) {
        c->data[c->have] = 0;
        char *end = memmem(c->data, c->have, "\r\n\r\n", 4);
        if (!end) return 0;
        if (strncmp(c->data, "HTTP/1.1 200", 12)) errors++;
        char *length = strcasestr(c->data, "\r\ncontent-length:");
        size_t head = (size_t)(end - c->data) + 4;
        if (length && length < end) {
            c->left = atol(length + 17) - (long)(c->have - head);
            c->have = 0;
            return c->left <= 0;
        }
        c->left = -1;
        memmove(c->data, c->data + head, c->have - head);
        c->have -= head;
    }
    if (c->left == -1) return stream_ended(c);
    c->left -= (long)c->have;
    c->have = 0;
    return c->left <= 0;
}

static uint64_t percentile(double share) {
    uint64_t wanted = (uint64_t)((double)requests * share), seen = 0;
    for (int i = 0; i <= 200000; i++)
        if ((seen += buckets[i]) > wanted) return (uint64_t)i * 5;
    return 1000000;
}

int main(int count, char **arguments) {
    if (count < 5) return 2;
    signal(SIGPIPE, SIG_IGN);
    port = atoi(arguments[1]);
    int connections = atoi(arguments[2]), sse = !strcmp(arguments[4], "sse"), big = !strcmp(arguments[4], "big");
    size_t picture = big && count > 5 ? strtoul(arguments[5], NULL, 10) : 0;
    const char *model = count > (big ? 6 : 7) ? arguments[big ? 6 : 7] : "mock";
    double seconds = atof(arguments[3]);
    char *body = malloc(picture + 2048), *image = malloc(picture + 1), filler[800];
    request = malloc(picture + 4096);
    for (size_t i = 0; i < picture; i++) image[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[i * 7 % 32];
    image[picture] = 0;
    for (int i = 0; i < 760; i++) filler[i] = i % 6 == 5 ? ' ' : 'a' + i % 26;
    filler[760] = 0;
    int size = big ? snprintf(body, picture + 2048,
                              "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
                              "{\"url\":\"data:image/png;base64,%s\"}}]}],\"model\":\"%s\"}", image, model)
                   : snprintf(body, 2048,
                        "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":%s,\"seed\":%s,\"temperature\":0.7,"
                        "\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                        "{\"role\":\"user\",\"content\":\"%s\"}]}",
                        model, sse ? "true" : "false", count > 5 ? arguments[5] : "50", count > 6 ? arguments[6] : "0",
                        filler);
    request_size = (size_t)snprintf(request, picture + 4096,
                                    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                                    "Content-Type: application/json\r\nAuthorization: Bearer sk-1234\r\n"
                                    "Content-Length: %d\r\n\r\n%s",
                                    port, size, body);
    int poller = epoll_create1(0), live = connections;
    struct client *clients = calloc((size_t)connections, sizeof *clients);
    uint64_t start = now_ns(), stop = start + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) {
        open_client(&clients[i], poller);
        begin(&clients[i]);
    }
    struct epoll_event ready[256];
    while (live && now_ns() < stop + 30000000000ull) {
        int found = epoll_wait(poller, ready, 256, 1000);
        for (int i = 0; i < found; i++) {
            struct client *c = ready[i].data.ptr;
            ssize_t got = recv(c->fd, c->data + c->have, sizeof c->data - c->have - 1, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                errors++;
                close(c->fd);
                if (now_ns() < stop && errors < 1000) {
                    open_client(c, poller);
                    begin(c);
                } else
                    live--;
                continue;
            }
            c->have += (size_t)got;
            if (!take(c)) continue;
            uint64_t now = now_ns(), bucket = (now - c->sent) / 5000;
            buckets[bucket > 200000 ? 200000 : bucket]++;
            requests++;
            if (now < stop)
                begin(c);
            else {
                live--;
                close(c->fd);
            }
        }
    }
    printf("{\"requests\":%lu,\"errors\":%lu,\"events\":%lu,\"seconds\":%.3f,\"p50_us\":%lu,\"p99_us\":%lu}\n",
           requests, errors + (uint64_t)live, events, (double)(now_ns() - start) / 1e9, percentile(0.5),
           percentile(0.99));
    return 0;
}
