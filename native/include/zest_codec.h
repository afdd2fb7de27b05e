/* The codec of zest_hf: hashes, chunk boundaries and the serialized xorb format of the Xet protocol
 * (https://huggingface.co/docs/xet).
 *
 * This header is also the cffi definition of the Python side, so that it holds plain C declarations only:
 * constants are enum members and every preprocessor line is dropped by native/build_shim.py.
 *
 * Conventions
 *  - No function throws. Functions that can fail return a zest_status and fill *err (never NULL) when
 *    the result is not ZEST_OK; functions that make an object return NULL instead.
 *  - A hash is 32 raw bytes. A list of hashes is 32 * n bytes, a list of lengths n numbers of bytes.
 *  - Ranges are half-open. Sizes and offsets are bytes.
 *  - An object may be used by one thread at a time; different objects are independent. Nothing here
 *    keeps a pointer to a caller's buffer after it returns.
 */
#ifndef ZEST_CODEC_H
#define ZEST_CODEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface; the Python side refuses a module that was built from another one. */
enum { ZEST_CODEC_ABI = 4 };

/* Limits of the format. Anything beyond them is malformed and is refused before memory is reserved. */
enum {
    ZEST_HASH_SIZE = 32,
    ZEST_CHUNK_HEADER_SIZE = 8,
    ZEST_CHUNK_MIN = 8192,          /* of the chunker; not the last chunk of a stream, not ZEST_RULE_EARLY */
    ZEST_CHUNK_MAX = 131072,        /* unpacked size of a chunk is 1..ZEST_CHUNK_MAX */
    ZEST_CHUNK_PACKED_MAX = 262144, /* packed size of a chunk is 1..ZEST_CHUNK_PACKED_MAX, without its header */
    ZEST_XORB_MAX_CHUNKS = 8192
};

/* How the payload of a chunk is packed. LZ4 means one LZ4 frame. */
enum {
    ZEST_SCHEME_AUTO = -1, /* choose as the reference uploader does; only for packing */
    ZEST_SCHEME_NONE = 0,
    ZEST_SCHEME_LZ4 = 1,
    ZEST_SCHEME_BG4_LZ4 = 2,
    ZEST_SCHEME_BITSLICE_LZ4 = 3
};

/* Results. */
enum {
    ZEST_OK = 0,
    ZEST_BAD_ARGUMENT = 1, /* the caller broke a documented range */
    ZEST_NO_MEMORY = 2,
    ZEST_MALFORMED = 3, /* bytes that are not a valid xorb */
    ZEST_MISMATCH = 4,  /* a chunk does not have the expected hash; wanted and got are filled */
    ZEST_SYSTEM = 5,    /* a system call failed; sys_errno is filled */
    ZEST_SHORT_FILE = 6 /* a file ended before the size that was given for it */
};
typedef int32_t zest_status;

typedef struct {
    zest_status status;
    int32_t sys_errno;
    uint8_t wanted[32];
    uint8_t got[32];
    char message[192]; /* one line of ASCII, zero-terminated */
} zest_error;

/* ZEST_CODEC_ABI of the compiled module. */
int32_t zest_codec_abi(void);

/* ---- hashes ---- */

/* Chunk hash: BLAKE3 keyed with the protocol's data key. size may be 0. */
void zest_chunk_hash(const uint8_t *data, size_t size, uint8_t out[32]);

/* Root over an ordered list of (hash, length): the xorb hash when the list is the chunks of a xorb.
 * count 0 gives 32 zero bytes. Working memory: that of a zest_tree. */
zest_status zest_merkle_root(const uint8_t *hashes, const uint32_t *lengths, size_t count, uint8_t out[32],
                             zest_error *err);

/* File hash over the file's ordered list of chunks; count 0 (an empty file) gives 32 zero bytes. */
zest_status zest_file_hash(const uint8_t *hashes, const uint32_t *lengths, size_t count, uint8_t out[32],
                           zest_error *err);

/* Verification hash of a term: over the raw chunk hashes of its range. */
void zest_verification_hash(const uint8_t *hashes, size_t count, uint8_t out[32]);

/* Each of `count` hashes keyed with `key`, as shards with a chunk hash key hold them: BLAKE3 with that key over the
 * 32 bytes. `out` has room for 32 * count bytes and may be `hashes`. */
void zest_keyed_hashes(const uint8_t *hashes, size_t count, const uint8_t key[32], uint8_t *out);

/* The tree of zest_merkle_root over a list that comes in pieces. Memory: less than 32 KiB, however long the list. */
typedef struct zest_tree zest_tree;

zest_tree *zest_tree_new(zest_error *err); /* NULL on ZEST_NO_MEMORY */
zest_tree *zest_tree_copy(const zest_tree *tree, zest_error *err);
void zest_tree_free(zest_tree *tree); /* NULL is allowed */

/* Appends members; zest_tree_root and zest_tree_file_hash may be asked at any time and change nothing. */
void zest_tree_add(zest_tree *tree, const uint8_t *hashes, const uint32_t *lengths, size_t count);
void zest_tree_root(const zest_tree *tree, uint8_t out[32]);
void zest_tree_file_hash(const zest_tree *tree, uint8_t out[32]);

/* ---- decoding a run of packed chunks ---- */

/* Where chunks [start, end) of the xorb go: the first byte of chunk `start` lands at file_offset and the
 * others follow it without gaps. start < end, inside the unpacker's own range. */
typedef struct {
    uint32_t start;
    uint32_t end;
    uint64_t file_offset; /* at most 2^62 */
} zest_placement;

typedef struct zest_unpacker zest_unpacker;

/* A streaming decoder of chunks [first, end) of a xorb, 0 <= first < end <= ZEST_XORB_MAX_CHUNKS.
 *  fd          file that decoded chunks are written to (pwrite), borrowed; -1 decodes and hashes only
 *  placements  `placement_count` of them, in any order, overlapping allowed; copied
 *  expected    NULL, or the 32 * (end - first) bytes of the chunk hashes; copied
 * NULL on ZEST_BAD_ARGUMENT and ZEST_NO_MEMORY. Free with zest_unpacker_free. */
zest_unpacker *zest_unpacker_new(int32_t fd, uint32_t first, uint32_t end, const zest_placement *placements,
                                 size_t placement_count, const uint8_t *expected, zest_error *err);
void zest_unpacker_free(zest_unpacker *unpacker); /* NULL is allowed */

/* Takes the next `size` bytes (any split is allowed), decodes, hashes, compares and writes every chunk that they
 * complete. ZEST_MALFORMED, ZEST_MISMATCH, ZEST_SYSTEM, ZEST_NO_MEMORY. A mismatching chunk is not
 * written. After a failure nothing changes any more, and the failure is repeated. */
zest_status zest_unpacker_feed(zest_unpacker *unpacker, const uint8_t *data, size_t size, zest_error *err);

/* From now on chunks from `end` on, or from the first that is not done yet if that comes later, are not wanted: they
 * are not decoded and may be missing. Returns where the range ends now; it never grows. */
uint32_t zest_unpacker_limit(zest_unpacker *unpacker, uint32_t end);

/* Says that the input is over: ZEST_MALFORMED when chunks are missing or bytes other than a footer follow them. */
zest_status zest_unpacker_finish(zest_unpacker *unpacker, zest_error *err);

/* What has come of it. Only zest_unpacker_feed changes it; valid as long as the unpacker. A struct, not calls: each
 * call from Python gives the interpreter's lock away, and has to get it back from all other threads. */
typedef struct {
    uint64_t bytes_written;  /* handed to pwrite so far, over all placements */
    uint32_t chunks_done;    /* decoded, proved (where a hash was expected) and written so far */
    const uint8_t *hashes;   /* 32 * chunks_done bytes */
    const uint32_t *lengths; /* unpacked, of the chunks done */
} zest_unpacked;
const zest_unpacked *zest_unpacker_unpacked(const zest_unpacker *unpacker);

/* ---- a whole xorb in memory ---- */

typedef struct zest_layout zest_layout;

/* Decodes and hashes all chunks of a serialized xorb, up to its end or its footer. NULL on ZEST_MALFORMED
 * (also: no chunk at all, more than ZEST_XORB_MAX_CHUNKS) and ZEST_NO_MEMORY. Free with zest_layout_free. */
zest_layout *zest_layout_new(const uint8_t *data, size_t size, zest_error *err);
void zest_layout_free(zest_layout *layout); /* NULL is allowed */
size_t zest_layout_count(const zest_layout *layout);
const uint8_t *zest_layout_hashes(const zest_layout *layout);          /* 32 * count bytes */
const uint32_t *zest_layout_lengths(const zest_layout *layout);        /* count */
const uint64_t *zest_layout_packed_offsets(const zest_layout *layout); /* count + 1, the first is 0 */

/* Decodes data[0, size), which is exactly `count` packed chunks (no footer) of out_size bytes in all, into `out`.
 * hashes: NULL, or room for the 32 * count bytes of the chunk hashes. ZEST_MALFORMED (also: more or fewer chunks or
 * bytes), ZEST_NO_MEMORY; `out` then holds whatever was decoded before. */
zest_status zest_unpack(const uint8_t *data, size_t size, size_t count, uint8_t *out, size_t out_size, uint8_t *hashes,
                        zest_error *err);

/* ---- packing ---- */

/* Room that zest_pack_chunk may need for a chunk of `size` bytes, header included. */
size_t zest_pack_bound(size_t size);

/* Packs one chunk (1..ZEST_CHUNK_MAX bytes) with its header into out[0, capacity), capacity >= zest_pack_bound(size);
 * *packed_size is what was written. A chunk that the scheme does not shrink is stored. ZEST_BAD_ARGUMENT for a
 * size, scheme or capacity out of range, ZEST_NO_MEMORY. */
zest_status zest_pack_chunk(const uint8_t *data, size_t size, int32_t scheme, uint8_t *out, size_t capacity,
                            size_t *packed_size, zest_error *err);

/* ---- chunk boundaries ---- */

/* Chunking is GearHash with a target of 64 KiB. Uploaders before hf_xet 1.1.10 (September 2025), and some
 * independent ones still, also accept a boundary in the 64 bytes before the minimum size, where the rolling hash
 * does not cover a full window yet. About one chunk in ten differs, so that only the rule a file was uploaded
 * with gives its file hash. */
enum {
    ZEST_RULE_CURRENT = 0, /* chunks of 8192..131072 bytes */
    ZEST_RULE_EARLY = 1    /* chunks of 8128..131072 bytes */
};

typedef struct zest_chunker zest_chunker;

/* Content-defined chunking of a stream. NULL on ZEST_BAD_ARGUMENT (rule), ZEST_NO_MEMORY. */
zest_chunker *zest_chunker_new(int32_t rule, zest_error *err);
void zest_chunker_free(zest_chunker *chunker); /* NULL is allowed */

/* Room (in boundaries) that a feed of `size` bytes may need. */
size_t zest_chunker_bound(size_t size);

/* Takes the next bytes of the stream and writes the stream offset of the end of every chunk that they complete to
 * boundaries[0, capacity), capacity >= zest_chunker_bound(size). Returns how many. The last chunk of the
 * stream ends where the stream ends and is not reported. */
size_t zest_chunker_feed(zest_chunker *chunker, const uint8_t *data, size_t size, uint64_t *boundaries,
                         size_t capacity);

/* ---- scanning a file ---- */

typedef struct zest_scan zest_scan;

/* Chunks and hashes a file of `size` bytes with positioned reads: the chunks that start in [begin, end), the first of
 * them at `begin`; 0 <= begin <= end <= size. Where [0, size) has a chunk boundary at `begin`, these are its chunks.
 * fd is borrowed and its position is not used. Memory: one buffer of less than 1 MiB. NULL on ZEST_BAD_ARGUMENT (rule,
 * range), ZEST_NO_MEMORY. */
zest_scan *zest_scan_new(int32_t fd, uint64_t begin, uint64_t end, uint64_t size, int32_t rule, zest_error *err);
void zest_scan_free(zest_scan *scan); /* NULL is allowed */

/* Hashes and lengths of the next at most max_chunks chunks into hashes (32 * max_chunks bytes) and lengths
 * (max_chunks); *count is how many there were, 0 at the end. ZEST_SYSTEM, ZEST_SHORT_FILE. */
zest_status zest_scan_next(zest_scan *scan, size_t max_chunks, uint8_t *hashes, uint32_t *lengths, size_t *count,
                           zest_error *err);

/* ---- copying chunks that are known ---- */

/* Chunks of these hashes (32 * count bytes) and lengths, one after the other from from_offset of one file, to
 * to_offset of another one. Each is read once, hashed, and written only when its hash is right: what changes from_fd's
 * file meanwhile can do no harm. What is in its place already, as both are one file and the offsets are equal, is not
 * written again. *copied is how many of the first were right and are written: fewer than count when the
 * next one is another, or cannot be read, which is no failure. ZEST_SYSTEM (writing failed), ZEST_BAD_ARGUMENT (a
 * length outside 1..ZEST_CHUNK_MAX), ZEST_NO_MEMORY. Both descriptors are borrowed; memory: 512 KiB. */
zest_status zest_copy_chunks(int32_t from_fd, uint64_t from_offset, int32_t to_fd, uint64_t to_offset,
                             const uint8_t *hashes, const uint32_t *lengths, size_t count, size_t *copied,
                             zest_error *err);

/* ---- work that nobody waits for ---- */

/* From now on the calling thread gets the disk when nobody else wants it (Linux: the idle class, where the scheduler of
 * the disk knows any), and less of the processors. For good. 1: done; 0: the system would not have it. */
int32_t zest_give_way(void);

#ifdef __cplusplus
}
#endif

#endif
