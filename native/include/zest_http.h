/* HTTP requests, whose answers are received and decrypted without the interpreter's lock.
 *
 * This header is also the cffi definition of the Python side, so that it holds plain C declarations only.
 *
 * Conventions
 *  - No function throws. Functions that can fail return a zest_http_status and fill *err (never NULL) when the result
 *    is not ZEST_HTTP_OK; functions that make an object return NULL instead.
 *  - A client may be used by several threads at the same time, a GET (or POST) by one, but for zest_http_get_abort.
 *  - Texts are UTF-8 and end with a zero; what was given is copied.
 */
#ifndef ZEST_HTTP_H
#define ZEST_HTTP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface; the Python side refuses a module that was built from another one. */
enum { ZEST_HTTP_ABI = 1 };

/* An answer whose head is longer is refused. */
enum { ZEST_HTTP_HEAD_MAX = 65536 };

/* Results. */
enum {
    ZEST_HTTP_OK = 0,
    ZEST_HTTP_BAD_REQUEST = 1, /* asking again would not help: no http(s) url, a proxy that is none, no memory, ... */
    ZEST_HTTP_UNTRUSTED = 2,   /* the certificate of the other side is not one of those that are trusted */
    ZEST_HTTP_NO_CONNECT = 3,  /* no connection in time */
    ZEST_HTTP_STALLED = 4,     /* no byte in time */
    ZEST_HTTP_BROKEN = 5       /* the connection could not be made or broke; the body ended early; it was aborted */
};
typedef int32_t zest_http_status;

typedef struct {
    zest_http_status status;
    char message[256];
} zest_http_error;

typedef struct zest_http_client zest_http_client;
typedef struct zest_http_get zest_http_get;

int32_t zest_http_abi(void);

/* Keeps at most `idle_max` connections that are not in use, to be used again for the same origin. Every single GET has
 * to have a connection after connect_timeout_ms, TLS included, and must not go without a byte for read_timeout_ms.
 * NULL when libcurl cannot be set up. */
zest_http_client *zest_http_client_new(const char *user_agent, uint32_t connect_timeout_ms, uint32_t read_timeout_ms,
                                       uint32_t idle_max, zest_http_error *err);
void zest_http_client_free(zest_http_client *client); /* NULL is allowed; its GETs go on; nothing in a forked child */

/* Closes what is idle. No connection is kept from now on; GETs go on. */
void zest_http_client_close(zest_http_client *client);

/* Asks for `url` by HTTP/1.1. Redirects are not followed, and nothing is taken from the environment.
 *  headers      "Name: value" lines, each ended with '\n'
 *  body         NULL for a GET, else what is sent by POST; borrowed until zest_http_get_free
 *  takes_gzip   1: says so, and the body that comes is unpacked
 *  proxy        of libcurl's forms, "" for none; but for the hosts of no_proxy, a list with commas
 *  trusted      certificates: a file or a directory
 * NULL on ZEST_HTTP_BAD_REQUEST and ZEST_HTTP_UNTRUSTED (no certificates there). Free with zest_http_get_free. */
zest_http_get *zest_http_get_new(zest_http_client *client, const char *url, const char *headers, const uint8_t *body,
                                 size_t body_size, int32_t takes_gzip, const char *proxy, const char *no_proxy,
                                 const char *trusted, zest_http_error *err);

/* Waits for the head of the answer: its status line and its fields as they came, *size bytes without a zero at the
 * end, valid as long as the GET. Of interim answers (1xx) nothing is kept. */
zest_http_status zest_http_get_head(zest_http_get *get, const char **head, size_t *size, zest_http_error *err);

/* The next bytes of the body into out[0, size): until that is full, the body ends, or most_ms are over and something
 * has come. *count is 0 at the end of the body, and only there. */
zest_http_status zest_http_get_read(zest_http_get *get, uint8_t *out, size_t size, uint32_t most_ms, size_t *count,
                                    zest_http_error *err);

/* From any thread: a call that waits in another one, and every later one, is ZEST_HTTP_BROKEN. */
void zest_http_get_abort(zest_http_get *get);

/* The connection is kept if the body has been read to its end. No other call may be under way. */
void zest_http_get_free(zest_http_get *get); /* NULL is allowed; nothing in a forked child */

#ifdef __cplusplus
}
#endif

#endif
