/* The swarm: a libtorrent session that carries BEP XET, as a C interface.
 *
 * Every function may be called from any thread. None of them calls back: what happens is put in a
 * queue (zest_session_next) that an eventfd announces (zest_session_event_fd). No function waits for
 * the network, except zest_session_open (until the port is bound) and zest_session_close.
 *
 * Hashes are 32 raw bytes, chunk ranges are half-open, times are milliseconds, sizes are bytes.
 * native/PROTOCOL.md describes the messages.
 */
#ifndef ZEST_SWARM_H
#define ZEST_SWARM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct zest_session zest_session;
typedef struct zest_transfer zest_transfer;
typedef struct zest_draft zest_draft;

/* What a hash names. */
enum zest_object_kind { ZEST_OBJECT_FILE = 1, ZEST_OBJECT_XORB = 2 };

enum zest_event_type {
    ZEST_EVENT_PEER_CONNECTED = 1, /* the TCP connection of a dial stands; token: the dial's */
    ZEST_EVENT_PEER_READY = 2,     /* handshakes are done; status: ZEST_SPEAKS_* bits; payload: its node id (20
                                      bytes, zeros when it gave none), then its address */
    ZEST_EVENT_PEER_GONE = 3,      /* the connection ended or was never made; payload: why.
                                      Of those that never were ready only dials are told */
    ZEST_EVENT_PEER_BANNED = 4,    /* the peer sent bytes that are provably wrong; payload: what */
    ZEST_EVENT_HAVE = 5,           /* count: chunks of the object; payload: pairs of u32 (start, end), host order */
    ZEST_EVENT_MANIFEST = 6,       /* count: chunks of the object; first: first chunk here;
                                      payload: n x 32 hash bytes, then n x u32 length, host order */
    ZEST_EVENT_PIECE = 7,          /* count: chunks written from the start of the piece; bytes: their sum */
    ZEST_EVENT_SHARE_LOST = 8,     /* a shared file changed or vanished; payload: its path */
    ZEST_EVENT_HAVE_MORE = 9,      /* the peer holds more; count and payload as HAVE, what is new alone. With status
                                      NOT_FOUND: not even what it said before; no more of this is told */
    ZEST_EVENT_CLAIMS = 10         /* what the peer does about a file: status: whether it downloads it; count: claims;
                                      payload: 32 hash bytes of the file, then count x zest_claim. What it said
                                      before counts no more */
};

enum zest_outcome {
    ZEST_OUTCOME_OK = 0,
    ZEST_OUTCOME_NOT_FOUND = 1, /* the peer does not hold it */
    ZEST_OUTCOME_TIMEOUT = 2,   /* nothing arrived in the time allowed */
    ZEST_OUTCOME_GONE = 3,      /* the connection ended */
    ZEST_OUTCOME_WRONG = 4,     /* provably wrong bytes; the peer is banned */
    ZEST_OUTCOME_BUSY = 5,      /* the peer has too much queued */
    ZEST_OUTCOME_IO = 6,        /* writing failed here; bytes: errno */
    ZEST_OUTCOME_CANCELLED = 7,
    ZEST_OUTCOME_UNSUPPORTED = 8 /* the peer cannot be asked this */
};

/* What a peer speaks (status of ZEST_EVENT_PEER_READY). */
enum zest_speaks {
    ZEST_SPEAKS_XET = 1, /* BEP XET v1: single chunks by hash */
    ZEST_SPEAKS_ZEST = 2 /* the zest_hf1 extension: manifests, haves, ranges */
};

typedef struct zest_event {
    uint32_t type;
    uint32_t peer;  /* number of the connection, never reused */
    uint64_t token; /* as given to the request or the dial; 0 for incoming connections */
    uint32_t status;
    uint32_t first;
    uint32_t count;
    uint32_t payload_size;
    uint64_t bytes;
} zest_event;

typedef struct zest_session_config {
    const char *listen_host;     /* numeric address, "" = every address, IPv4 and (where there is any) IPv6 */
    uint16_t listen_port;        /* 0 = any */
    uint16_t port_retries;       /* how many following ports to try when it is taken */
    uint32_t connect_timeout_ms; /* TCP connect and BitTorrent handshake */
    uint64_t max_up_bytes_s;     /* 0 = no cap */
    uint64_t max_down_bytes_s;   /* 0 = no cap */
    uint8_t node_id[20];         /* who we are, on every connection */
    const uint8_t *swarm_key;    /* secret of a keyed swarm: only who has it is talked to, and sealed */
    size_t swarm_key_size;       /* 0 = none */
    uint8_t lsd;                 /* find peers on the local network (BEP 14) */
    uint8_t dht;                 /* find peers in the DHT (BEP 5) */
    const char *trackers;        /* URLs (http, https, udp), a line each; NULL = none */
    const char *dht_bootstrap;   /* host:port, a line each; NULL = none */
    const char *scratch_dir;     /* what is offered is described in a file without a name in there; NULL, or when
                                    that cannot be written: in memory, 32 bytes more a chunk */
} zest_session_config;

typedef struct zest_term {
    uint8_t xorb[32];
    uint32_t start;
    uint32_t end;
} zest_term;

/* Chunks of a file that a downloader fetches from elsewhere, or has fetched and proved. */
enum zest_claim_state { ZEST_CLAIM_FETCHING = 1, ZEST_CLAIM_HELD = 2 };

typedef struct zest_claim {
    uint32_t start;
    uint32_t end;
    uint16_t state;    /* ZEST_CLAIM_* */
    uint16_t progress; /* in 1/65535 of its bytes */
} zest_claim;

/* How a peer was found. */
enum zest_source {
    ZEST_SOURCE_GIVEN = 1, /* by zest_session_dial */
    ZEST_SOURCE_INCOMING = 2,
    ZEST_SOURCE_LSD = 3,
    ZEST_SOURCE_TRACKER = 4,
    ZEST_SOURCE_DHT = 5,
    ZEST_SOURCE_PEX = 6 /* another peer named it */
};

enum zest_tracker_state { ZEST_TRACKER_UNTRIED = 0, ZEST_TRACKER_WORKING = 1, ZEST_TRACKER_FAILING = 2 };

typedef struct zest_tracker_info {
    uint32_t state; /* ZEST_TRACKER_*, of its last answer */
    uint32_t peers; /* in its last answer */
    char url[256];
    char message[128]; /* what failed */
} zest_tracker_info;

typedef struct zest_peer_info {
    uint32_t peer;
    uint32_t speaks;
    uint64_t token;
    uint64_t bytes_down;   /* proved payload received */
    uint64_t bytes_up;     /* payload handed to the socket */
    uint32_t requests_out; /* ours, waiting for an answer */
    uint32_t requests_in;  /* theirs, waiting for us */
    uint8_t outgoing;
    uint8_t ready;
    uint8_t source;      /* ZEST_SOURCE_* */
    uint8_t node_id[20]; /* zeros when the peer gave none */
    char address[64];    /* "1.2.3.4:5", "[::1]:5" */
    char client[48];
} zest_peer_info;

typedef struct zest_ban_info {
    uint8_t node_id[20];
    char address[64];
    char reason[128];
} zest_ban_info;

typedef struct zest_share_info {
    uint8_t file_hash[32];
    uint64_t bytes_up; /* payload of this file handed to sockets in this session */
    uint32_t peers;    /* connected peers that were served some of it */
} zest_share_info;

typedef struct zest_session_stats {
    uint64_t bytes_up;
    uint64_t bytes_down;
    uint64_t chunks_wrong;
    uint32_t peers_ready;
    uint32_t files_shared;
    uint32_t xorbs_shared;
    uint32_t bans;
    uint32_t dht_nodes; /* in our routing tables */
    uint32_t swarms_joined;
    uint32_t swarms_loaded; /* torrents, also for those who came by themselves */
    uint32_t dials_open;    /* of peers that were found, not ready yet */
} zest_session_stats;

/* Open a session and bind its port. NULL on failure, with one line in error. */
zest_session *zest_session_open(const zest_session_config *config, char *error, size_t error_size);
/* Stop everything and free the session; waits for its threads (at most about a second). Transfers may outlive it. */
void zest_session_close(zest_session *session);
uint16_t zest_session_port(zest_session *session);
/* A descriptor that is readable while events wait. Owned by the session. */
int zest_session_event_fd(zest_session *session);
/* Take the next event. 1: *event and its payload are filled; 0: none waits; -1: capacity is less than
 * event->payload_size, the event stays. */
int zest_session_next(zest_session *session, zest_event *event, uint8_t *payload, size_t capacity);

/* The 20 bytes that name an object's swarm in this session. */
void zest_session_info_hash(zest_session *session, int kind, const uint8_t *hash, uint8_t *out);

/* Connect to host:port (a numeric address). With info_hash NULL the rendezvous for peers given by hand is
 * used, else that swarm. One attempt, begun at once, whose end is a ZEST_EVENT_PEER_GONE with the token (peer 0
 * when there was no connection of its own, as to an address that is connected already). 0, or -1 when the address
 * cannot be read. */
int zest_session_dial(zest_session *session, const char *host, uint16_t port, const uint8_t *info_hash, uint64_t token);
/* Look for peers that know an object, and, with announce, be found by others: a file by LSD, trackers and the DHT as
 * the session was told, a xorb in the DHT alone. (On the LAN and at trackers to look is to be seen.) Peers are dialled
 * as they are found; they come out as events without a token. Joining again changes announce. The first one starts
 * what is on; before it nothing is sent. */
void zest_session_join(zest_session *session, int kind, const uint8_t *hash, int announce);
/* No more of that, nor of claims. Connections stay. */
void zest_session_leave(zest_session *session, int kind, const uint8_t *hash);
/* One more tracker. libtorrent looks up names on a thread that the end of the session waits for, as long as that takes
 * where nothing answers: trackers and nodes whose names are not known to resolve are better added when they did. */
void zest_session_add_tracker(zest_session *session, const char *url);
/* A node (a numeric address) from which the DHT may start. Nothing is sent before the first join. */
void zest_session_add_dht_node(zest_session *session, const char *host, uint16_t port);
/* What this node does about a file: that it downloads it, and what of it, at most 1024 claims in order and disjoint
 * (none when it does not). Peers that have proved to know the file are told of it, in ZEST_EVENT_CLAIMS, and of each
 * change: at most every 100 ms, of progress every 500 ms. To leave the file ends it.
 * 0; -1: the claims are not valid. */
int zest_session_tell_claims(zest_session *session, const uint8_t *file_hash, int downloading, uint32_t claims,
                             const zest_claim *claim);
/* The trackers, in order. Fill at most capacity entries; the number there are is returned. */
size_t zest_session_trackers(zest_session *session, zest_tracker_info *out, size_t capacity);

/* Disconnect a peer and never talk to it again in this session. */
void zest_session_ban(zest_session *session, uint32_t peer, const char *reason);

/* Ask which chunks of an object a peer holds. Answered by ZEST_EVENT_HAVE. With updates not 0 and an answer that is
 * ok, ZEST_EVENT_HAVE_MORE with the same token follows whenever it holds more, until it is gone or told to forget. */
void zest_session_ask_have(zest_session *session, uint64_t token, uint32_t peer, int kind, const uint8_t *hash,
                           int updates, uint32_t timeout_ms);
void zest_session_forget_have(zest_session *session, uint32_t peer, uint64_t token);
/* Ask for chunks [first, first + count) of an object's manifest, count <= 16384. Answered by ZEST_EVENT_MANIFEST. */
void zest_session_ask_manifest(zest_session *session, uint64_t token, uint32_t peer, int kind, const uint8_t *hash,
                               uint32_t first, uint32_t count, uint32_t timeout_ms);

/* A file that is being written, or a run of its chunks from offset_bytes on: its descriptor (duplicated) and the
 * proved manifest. NULL with errno set when the descriptor cannot be duplicated, a length is not 1..131072, or memory
 * is short. */
zest_transfer *zest_transfer_open(int fd, uint64_t offset_bytes, uint32_t chunks, const uint8_t *hashes,
                                  const uint32_t *lengths);
/* Chunks [first, first + count) were proved and written in place by the caller. 0; -1: there are no such chunks. */
int zest_transfer_wrote(zest_transfer *transfer, uint32_t first, uint32_t count);
/* When this returns nothing is written to the file any more; pieces still asked for end as cancelled when something of
 * them comes. What is held is still offered. */
void zest_transfer_seal(zest_transfer *transfer);
/* When this returns nothing is written to the file any more, nor read from it; pieces still asked for end as
 * cancelled, and it is not offered any more. */
void zest_transfer_close(zest_transfer *transfer);

/* Ask a peer for count chunks of an object from object_first; they become chunks of the file from file_first.
 * Each is hashed, compared with the transfer's manifest and written in place. Answered by ZEST_EVENT_PIECE.
 * timeout_ms is the longest silence of the peer that is borne. */
void zest_session_ask_piece(zest_session *session, uint64_t token, uint32_t peer, zest_transfer *transfer, int kind,
                            const uint8_t *hash, uint32_t object_first, uint32_t file_first, uint32_t count,
                            uint32_t timeout_ms);
void zest_session_cancel_piece(zest_session *session, uint32_t peer, uint64_t token);

/* Chunks start..end of a xorb that nothing proves yet, in order and while they come: size_bytes together, the first of
 * them at offset_bytes of the file behind the descriptor (which is duplicated). NULL with errno set when that cannot be
 * done, or the chunks are not those of a xorb. */
zest_draft *zest_draft_open(int fd, uint64_t offset_bytes, uint64_t size_bytes, const uint8_t *xorb, uint32_t start,
                            uint32_t end);
/* The caller has got the next count chunks and written them in place. 0; -1: they do not fit, or it has ended. */
int zest_draft_add(zest_draft *draft, uint32_t count, const uint8_t *hashes, const uint32_t *lengths);
/* Nothing more comes. Who follows is sent what has come. */
void zest_draft_end(zest_draft *draft);
/* How many chunks have come, and their bytes. */
uint32_t zest_draft_count(zest_draft *draft);
uint64_t zest_draft_bytes(zest_draft *draft);
/* Hashes and lengths of the first chunks, at most count; how many. */
uint32_t zest_draft_copy(zest_draft *draft, uint32_t count, uint8_t *hashes, uint32_t *lengths);
/* When this returns nothing is written by it any more, nor read. */
void zest_draft_close(zest_draft *draft);
/* It ends, but those who follow it get what has come; then it is closed. */
void zest_draft_release(zest_draft *draft);

/* Let peers follow a draft that the caller adds to, until it is not shared any more; who follows then may go on. */
void zest_session_share_draft(zest_session *session, zest_draft *draft);
void zest_session_unshare_draft(zest_session *session, zest_draft *draft);
/* Follow what a peer shares of the draft's chunks: each is written in place as it comes. Answered by ZEST_EVENT_PIECE,
 * with what has come by then (OK: all of it); zest_session_cancel_piece ends it. What it is worth is for the caller to
 * prove. timeout_ms is the longest silence that is borne. BUSY: the peer gets no more of it, or has enough followers.
 */
void zest_session_follow(zest_session *session, uint64_t token, uint32_t peer, zest_draft *draft, uint32_t timeout_ms);

/* Offer a file: chunks of it, and chunks of the xorbs that its terms name, are served from path as long as
 * its size and modification time stay as given. The terms' chunk counts must add up to chunks (or there are
 * none). 0; -1 when the terms do not fit or a length is not 1..131072. */
int zest_session_share(zest_session *session, const char *path, uint64_t size, int64_t mtime_ns,
                       const uint8_t *file_hash, uint32_t chunks, const uint8_t *hashes, const uint32_t *lengths,
                       uint32_t terms, const zest_term *term);
void zest_session_unshare(zest_session *session, const char *path, const uint8_t *file_hash);

/* Offer what is held so far of a transfer, and what comes: chunks of the file, unless file_hash is NULL (a run of a
 * file), and of the xorbs that the terms name. 0; -1 when the descriptor cannot be read from or the terms do not fit.
 */
int zest_session_share_transfer(zest_session *session, zest_transfer *transfer, const uint8_t *file_hash,
                                uint32_t terms, const zest_term *term);
void zest_session_unshare_transfer(zest_session *session, zest_transfer *transfer);

/* Bytes per second that peers are sent (payload and its headers), and that come from them. 0: no cap. */
void zest_session_set_caps(zest_session *session, uint64_t max_up_bytes_s, uint64_t max_down_bytes_s);
/* With on = 0 every question about what is offered here is answered as if nothing were, also those that wait, until it
 * is switched on again; what is being read or sent just then still goes. */
void zest_session_set_uploads(zest_session *session, int on);

/* Fill at most capacity entries; the number there are is returned. */
size_t zest_session_peers(zest_session *session, zest_peer_info *out, size_t capacity);
size_t zest_session_bans(zest_session *session, zest_ban_info *out, size_t capacity);
/* The files that somebody was served from. */
size_t zest_session_shares(zest_session *session, zest_share_info *out, size_t capacity);
void zest_session_get_stats(zest_session *session, zest_session_stats *out);

#ifdef __cplusplus
}
#endif

#endif
