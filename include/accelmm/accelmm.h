/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ACCELMM_ACCELMM_H
#define ACCELMM_ACCELMM_H

/*
 * The C interface of accelmm for applications: open a node, allocate, map, share, submit, wait.
 *
 * Errors    functions that return int give 0, or a count where they say so, or a negative errno.
 *           accelmm_error_text() says what it means here. A failed call has changed nothing.
 *           From every function that takes a session:
 *             -ENODEV  the driver process died, the device was removed, or this is a forked child;
 *                      so it stays
 *             -EPROTO  the driver process answered nonsense; descriptors that came are closed
 *             -EINVAL  an argument is NULL, a reserved field is not 0, or a handle is stale, forged
 *                      or another session's
 *             -ENOMEM  no memory, here or there
 * Threads   every function may be called from any thread at any time, also on one session by many;
 *           one that waits holds no other up. A session, a mapping or a handle must not be given
 *           back while another call uses it.
 * Units     sizes, offsets and lengths are bytes; times are nanoseconds of CLOCK_MONOTONIC;
 *           deadlines are absolute.
 * Sizes     device addresses and handles are 64 bits, and 0 is an ordinary value of both.
 * Fds       every descriptor that a function gives is the caller's to close and is close-on-exec,
 *           unless said otherwise. Descriptors that are passed in stay the caller's, always.
 * Versions  a function is never removed and never changes its meaning within one soname. Structs of
 *           this file never change; structs that the driver process may extend are passed with
 *           their size. (docs/adr/0006-c-abi-versioning.md)
 */

#include <accelmm/uapi.h>

#include <stddef.h>
#include <stdint.h>

#define ACCELMM_VERSION_MAJOR 0
#define ACCELMM_VERSION_MINOR 1
#define ACCELMM_VERSION_PATCH 0
#define ACCELMM_VERSION_NUMBER \
  (ACCELMM_VERSION_MAJOR << 16 | ACCELMM_VERSION_MINOR << 8 | ACCELMM_VERSION_PATCH)

#define ACCELMM_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* --- version and errors --- */

/* Returns ACCELMM_VERSION_NUMBER of the library that runs: major << 16 | minor << 8 | patch. */
ACCELMM_API uint32_t accelmm_version_number(void);
/* Returns the same as "major.minor.patch". Static. */
ACCELMM_API const char* accelmm_version_text(void);
/* Returns what an errno, negative or positive, means in accelmm. Static, never NULL. */
ACCELMM_API const char* accelmm_error_text(int error);

/* --- sessions --- */

/*
 * One open of a node. Its end ends its handles and device mappings; CPU mappings and exports that
 * were taken out of it live on.
 */
typedef struct accelmm_session accelmm_session;

/*
 * Opens a node (ACCELMM_NODE_*) of a device in the default runtime directory: /run/accelmm, else
 * $XDG_RUNTIME_DIR/accelmm, else a directory of the user below the system's temporary directory.
 * Owns      on success *session is the caller's, for accelmm_session_close().
 * Errors    -ENODEV: no such node, or nobody serves it.  -EACCES: its mode refuses this user.
 *           -EBUSY: another session holds an exclusive device.  -EAGAIN: the device is in reset.
 *           -EPROTO: another version of the protocol.  -EINVAL: no such kind of node.
 *           Any value of connect(2).
 */
ACCELMM_API int accelmm_session_connect(uint32_t device, uint32_t node, accelmm_session** session);
/* Opens the node with this path; otherwise as accelmm_session_connect(). */
ACCELMM_API int accelmm_session_connect_path(const char* path, accelmm_session** session);
/* Ends a session. Nobody may use it any more. NULL is allowed. */
ACCELMM_API void accelmm_session_close(accelmm_session* session);

/* Returns ACCELMM_NODE_*. Asks nobody. Errors: -EINVAL only. */
ACCELMM_API int accelmm_session_get_node(const accelmm_session* session);
/* Returns the number of the device. Asks nobody. Errors: -EINVAL only. */
ACCELMM_API int accelmm_session_get_device(const accelmm_session* session);
/* Writes the number of the session, unique in the driver process. Asks nobody. Errors: -EINVAL only. */
ACCELMM_API int accelmm_session_get_number(const accelmm_session* session, uint64_t* number);

/*
 * Sends one ioctl, common or the driver's own. The number says how long `args` is (_IOC_SIZE).
 *
 * On success args is what came back, if the number says that something does (_IOC_READ). `fds` may
 * be NULL: then none go along, and those that come are closed.
 * Owns      in[] stay the caller's; out[] are the caller's on success, and out_count is 0 on failure.
 * Errors    -ENOTTY: unknown ioctl.  -E2BIG: args holds something that an older driver does not
 *           know.  What the driver says.
 */
struct accelmm_ioctl_fds {
  uint32_t in_count;
  uint32_t out_count;
  int in[ACCELMM_MAX_FDS];
  int out[ACCELMM_MAX_FDS];
};
ACCELMM_API int accelmm_session_ioctl(accelmm_session* session, uint32_t command, void* args,
                                      struct accelmm_ioctl_fds* fds);

/* --- facts: on both kinds of node unless said otherwise --- */

/*
 * `size` is sizeof *info as the application was compiled: what the library does not know of a newer
 * struct is zero, and of an older struct only its part is written.
 * Errors    -EINVAL: size is 0.
 */
ACCELMM_API int accelmm_info_read_device(accelmm_session* session, struct accelmm_info_device* info,
                                         size_t size);
ACCELMM_API int accelmm_info_read_usage(accelmm_session* session, struct accelmm_info_usage* info,
                                        size_t size);
/* Compute nodes. Errors: -EINVAL: a control node has no such facts. */
ACCELMM_API int accelmm_info_read_session(accelmm_session* session,
                                          struct accelmm_info_session* info, size_t size);
/* The last fault of this session's jobs, or of the device on a control node; count 0: none yet. */
ACCELMM_API int accelmm_info_read_fault(accelmm_session* session, struct accelmm_info_fault* info,
                                        size_t size);
/*
 * Reads the driver's own topic ACCELMM_INFO_DRIVER + topic into data, at most `capacity` bytes.
 * Returns   the bytes that the topic has: at most ACCELMM_INFO_DATA_SIZE, maybe more than capacity.
 * Errors    -EINVAL: the driver has no such topic.
 */
ACCELMM_API int accelmm_info_read_driver(accelmm_session* session, uint32_t topic, void* data,
                                         size_t capacity);

/*
 * Says why there is no device memory for a request of `bytes` with ACCELMM_ALLOC_* flags; of 0 bytes:
 * for the one that failed last. Who holds what of it: on compute nodes this session only, on control
 * nodes every session. `size` is sizeof *shortage, as for the facts above.
 * Errors    -EINVAL: size is 0, or flags that contradict each other.  -EOPNOTSUPP: the device has no
 *           memory.
 */
ACCELMM_API int accelmm_shortage_read(accelmm_session* session, uint64_t bytes, uint32_t flags,
                                      struct accelmm_shortage* shortage, size_t size);
/*
 * Writes the same in words, several lines, at most `capacity` bytes with the terminating zero. `size`
 * as above. Asks nobody.
 * Returns   the length of the whole text without the zero, maybe more than there was room for.
 * Errors    -EINVAL: NULL where there is room, or size is 0.
 */
ACCELMM_API int accelmm_shortage_text(const struct accelmm_shortage* shortage, size_t size,
                                      char* text, size_t capacity);

/*
 * Moves device memory of sessions, at most `budget` bytes of it, so that a free run of `run` bytes comes
 * to be; of 0 bytes: so that native pages which small pieces share become empty. Control nodes only.
 * `outcome`, of `size` bytes as above, tells what was moved, and what is free now.
 * Errors    -EPERM: only root, the driver process's user and the nodes' owner may.  -EOPNOTSUPP: the
 *           device cannot.  -EBUSY: it is at it already.  -EINVAL: no budget, or size is 0.  -ENOTTY:
 *           a compute node.  What the device failed with.
 */
ACCELMM_API int accelmm_memory_defragment(accelmm_session* session, uint64_t budget, uint64_t run,
                                          struct accelmm_defragment* outcome, size_t size);

/* --- buffers: compute nodes; control nodes answer -ENOTTY --- */

struct accelmm_buffer {
  uint64_t handle;
  uint64_t size;   /* bytes, in whole pages */
  uint32_t access; /* ACCELMM_ACCESS_*: what mappings may do */
  uint32_t reserved;
};

/* A piece of a buffer. Offset and length are whole pages (accelmm_info_device says how large). */
struct accelmm_view {
  uint64_t handle;
  uint64_t offset;
  uint64_t length;
};

/*
 * Allocates memory: at least `size` bytes, zero, in ACCELMM_DOMAIN_*, with ACCELMM_ALLOC_* flags.
 * Owns      the handle is the caller's, for accelmm_buffer_free(), or ends with the session.
 * Errors    -EINVAL: size 0, or flags that do not fit the domain.  -EDQUOT: over quota.
 */
ACCELMM_API int accelmm_buffer_allocate(accelmm_session* session, uint64_t size, uint32_t domain,
                                        uint32_t flags, struct accelmm_buffer* buffer);
/*
 * The same with a choice of how host memory is made. `backing` NULL: as the driver process prefers.
 * Errors    besides, with ACCELMM_BACKING_EXACT, why it cannot be had: -EPERM: the driver process
 *           refuses such pages.  -EOPNOTSUPP: the machine has no such pages or nodes.  -ENOMEM: a
 *           pool is empty.  -EDQUOT: more may not be locked.
 */
ACCELMM_API int accelmm_buffer_allocate_backed(accelmm_session* session, uint64_t size,
                                               uint32_t domain, uint32_t flags,
                                               const struct accelmm_backing_request* backing,
                                               struct accelmm_buffer* buffer);
/*
 * Says what was had. Waits for a prefault that is under way until `deadline_ns`; 0 only asks.
 * `size` is sizeof *backing as the application was compiled, as for the facts above.
 * Errors    -EOPNOTSUPP: device memory.  -EDQUOT: too many calls wait.  -EINVAL: size is 0.
 */
ACCELMM_API int accelmm_buffer_get_backing(accelmm_session* session, uint64_t handle,
                                           uint64_t deadline_ns, struct accelmm_backing* backing,
                                           size_t size);
/* Gives a handle back. Mappings and exports keep the memory until they end. */
ACCELMM_API int accelmm_buffer_free(accelmm_session* session, uint64_t handle);

/* A piece of a buffer in this process's memory. Lives on when the buffer or the session end. */
typedef struct accelmm_mapping accelmm_mapping;

/*
 * Maps a piece of a buffer into this process. Children of fork() do not have it.
 * Owns      on success *mapping is the caller's, for accelmm_mapping_close().
 * Errors    -EINVAL: not whole pages, or beyond the end.  -EPERM: write access to what is read-only.
 *           -EOPNOTSUPP: device memory that is not CPU-visible.  -EDQUOT.  Any value of mmap(2).
 */
ACCELMM_API int accelmm_buffer_map(accelmm_session* session, const struct accelmm_view* view,
                                   uint32_t access, accelmm_mapping** mapping);
/* Returns where the bytes begin, or NULL for NULL. */
ACCELMM_API void* accelmm_mapping_address(const accelmm_mapping* mapping);
/* Returns how many bytes there are, or 0 for NULL. */
ACCELMM_API uint64_t accelmm_mapping_length(const accelmm_mapping* mapping);
/* Unmaps. NULL is allowed. */
ACCELMM_API void accelmm_mapping_close(accelmm_mapping* mapping);

/* --- device mappings: compute nodes of devices with an MMU --- */

struct accelmm_placement {
  uint32_t rule; /* ACCELMM_PLACE_* */
  uint32_t reserved;
  uint64_t address; /* for HINT and FIXED, otherwise 0 */
};
struct accelmm_device_mapping {
  uint64_t address;
  struct accelmm_point point; /* reached when the device can use it */
};

/*
 * Maps a piece of a buffer for the device's engines. `placement` NULL means anywhere.
 * Owns      the mapping is the session's until accelmm_device_unmap(); it keeps the memory.
 * Errors    -EINVAL: not whole pages, or beyond the end.  -EADDRINUSE: the fixed address is taken.
 *           -EOPNOTSUPP: the device has no MMU.  -EDQUOT.
 */
ACCELMM_API int accelmm_device_map(accelmm_session* session, const struct accelmm_view* view,
                                   uint32_t access, const struct accelmm_placement* placement,
                                   struct accelmm_device_mapping* mapping);
/*
 * Unmaps what begins at `address`. `point` may be NULL; it is reached when the device cannot use the
 * mapping any more.
 * Errors    -EINVAL: no mapping begins there.
 */
ACCELMM_API int accelmm_device_unmap(accelmm_session* session, uint64_t address,
                                     struct accelmm_point* point);

/* --- sharing --- */

struct accelmm_shared_piece {
  int32_t fd;
  uint32_t reserved;
  uint64_t offset; /* bytes into the descriptor */
  uint64_t length;
};
/* A view as others can take it, its bytes in the order of the pieces. */
struct accelmm_shared_view {
  uint32_t count;
  uint32_t reserved;
  struct accelmm_shared_piece pieces[ACCELMM_MAX_PIECES];
};

/*
 * Exports a piece of a buffer.
 * Owns      on success the caller owns the descriptor of each of the `count` pieces, one each; the
 *           rest of the struct is zero. On failure count is 0.
 * Errors    -EINVAL: not whole pages, or beyond the end.  -EOPNOTSUPP: this memory cannot be shared
 *           as asked.
 */
ACCELMM_API int accelmm_buffer_export(accelmm_session* session, const struct accelmm_view* view,
                                      struct accelmm_shared_view* shared);
/*
 * Makes a buffer of what someone exported: sealed memfds or dma-bufs.
 * Owns      the handle as in accelmm_buffer_allocate(); the descriptors stay the caller's and may be
 *           closed at once.
 * Errors    -EINVAL: no pieces, too many, or a memfd that is not sealed.  -EBADF.  -EDQUOT.
 */
ACCELMM_API int accelmm_buffer_import(accelmm_session* session,
                                      const struct accelmm_shared_view* shared,
                                      struct accelmm_buffer* buffer);
/*
 * Sends a shared view over a Unix SOCK_SEQPACKET or SOCK_DGRAM socket of the application's own.
 * Owns      the descriptors stay the caller's.
 * Errors    -EINVAL: no pieces, or too many.  Any value of sendmsg(2); never raises SIGPIPE.
 */
ACCELMM_API int accelmm_shared_view_send(int socket, const struct accelmm_shared_view* shared);
/*
 * Receives what accelmm_shared_view_send() sent; waits for it if the socket is a blocking one.
 * Owns      as accelmm_buffer_export().
 * Errors    -EPROTO: it was something else.  -ECONNRESET: the sender closed.  Any value of
 *           recvmsg(2).
 */
ACCELMM_API int accelmm_shared_view_receive(int socket, struct accelmm_shared_view* shared);

/* --- waiting --- */

#define ACCELMM_NO_DEADLINE UINT64_MAX

/*
 * Waits until a point is reached. A deadline of 0 only asks.
 * Errors    -ETIMEDOUT: the deadline came first.  What the job at exactly this point failed with
 *           (-EFAULT: the device could not reach memory, see accelmm_info_read_fault()).
 *           -EINVAL: nobody gave this point out.
 */
ACCELMM_API int accelmm_point_wait(accelmm_session* session, struct accelmm_point point,
                                   uint64_t deadline_ns);
/* Asks for one event when the point is reached or failed. -ENOTCONN before accelmm_event_get_fd(). */
ACCELMM_API int accelmm_point_watch(accelmm_session* session, struct accelmm_point point);
/*
 * Returns the descriptor to poll: readable when a watched point ended, hung up when the driver
 * process is gone. It is the session's own: not to be read or closed by the caller.
 */
ACCELMM_API int accelmm_event_get_fd(accelmm_session* session);
/*
 * Takes one event. Never waits.
 * Returns   1: *event was written.  0: there is none now.
 * Errors    -ENODEV: none is left and none will come.
 */
ACCELMM_API int accelmm_event_read(accelmm_session* session, struct accelmm_event* event);

#ifdef __cplusplus
} /* extern "C" */

static_assert(sizeof(struct accelmm_ioctl_fds) == 72, "C ABI");
static_assert(sizeof(struct accelmm_buffer) == 24, "C ABI");
static_assert(sizeof(struct accelmm_view) == 24, "C ABI");
static_assert(sizeof(struct accelmm_placement) == 16, "C ABI");
static_assert(sizeof(struct accelmm_device_mapping) == 24, "C ABI");
static_assert(sizeof(struct accelmm_shared_piece) == 24, "C ABI");
static_assert(sizeof(struct accelmm_shared_view) == 200, "C ABI");
#endif

#endif /* ACCELMM_ACCELMM_H */
