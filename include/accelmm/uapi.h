/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ACCELMM_UAPI_H
#define ACCELMM_UAPI_H

/*
 * What crosses between an application and a driver process.
 *
 * A node is a Unix SOCK_SEQPACKET socket. A packet is a struct accelmm_message_header and `size`
 * bytes; descriptors travel beside it (SCM_RIGHTS) and are named in structs by their index in the
 * packet. A session begins with HELLO; after that every packet is an ioctl and has exactly one
 * reply with the same sequence number.
 *
 * ioctl structs: fixed width, natural alignment, explicit padding that must be zero, no pointers,
 * no descriptors. A struct may grow at its end: a shorter one from an older application is extended
 * with zeros, a longer one from a newer application is taken if what we do not know is zero (else
 * E2BIG). Replies have the size of the request.
 */

#include <linux/ioctl.h>
#include <linux/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ACCELMM_PROTOCOL_MAJOR 1
#define ACCELMM_PROTOCOL_MINOR 0

#define ACCELMM_MAGIC 0x4d434341u /* "ACCM" in the order of the bytes */
#define ACCELMM_MAX_MESSAGE 65536 /* header included; a socket takes 212 960 */
#define ACCELMM_MAX_FDS 8         /* per packet, both ways */
#define ACCELMM_NAME_SIZE 32      /* with the terminating zero */

enum {
  ACCELMM_MESSAGE_HELLO = 1,
  ACCELMM_MESSAGE_IOCTL = 2,
};

/*
 *  0        4      6         8         12        16       20     24
 *  | magic  | kind | fd_count| sequence| command | status | size | payload...
 */
struct accelmm_message_header {
  __u32 magic;
  __u16 kind;     /* ACCELMM_MESSAGE_*; a reply has the kind of its request */
  __u16 fd_count; /* descriptors beside this packet */
  __u32 sequence; /* chosen by the application, echoed by the reply */
  __u32 command;  /* ioctl number, 0 for HELLO; echoed by the reply */
  __s32 status;   /* reply: 0 or a negative errno; request: 0 */
  __u32 size;     /* bytes that follow this header */
};

struct accelmm_hello {
  __u16 major; /* application: what it speaks; reply: what will be spoken */
  __u16 minor;
  __u32 node;     /* reply: ACCELMM_NODE_* */
  __u64 features; /* none defined yet: 0 */
  __u32 device;   /* reply: number of the device */
  __u32 max_message;
  __u32 max_fds;
  __u32 reserved;
  __u64 session; /* reply: number of the session, unique in the driver process */
};

enum {
  ACCELMM_NODE_COMPUTE = 0,
  ACCELMM_NODE_CONTROL = 1,
};

#define ACCELMM_IOCTL_TYPE 0xEA
#define ACCELMM_IO(nr) _IO(ACCELMM_IOCTL_TYPE, nr)
#define ACCELMM_IOR(nr, type) _IOR(ACCELMM_IOCTL_TYPE, nr, type)
#define ACCELMM_IOW(nr, type) _IOW(ACCELMM_IOCTL_TYPE, nr, type)
#define ACCELMM_IOWR(nr, type) _IOWR(ACCELMM_IOCTL_TYPE, nr, type)
/* Numbers [begin, end) belong to the driver, as in DRM; the rest is common. */
#define ACCELMM_DRIVER_IOCTL_BEGIN 0x40
#define ACCELMM_DRIVER_IOCTL_END 0xa0

/* A point on one of the session's timelines. */
struct accelmm_point {
  __u32 timeline; /* ACCELMM_TIMELINE_* */
  __u32 reserved;
  __u64 value; /* 0 is always reached */
};
enum {
  ACCELMM_TIMELINE_ADDRESS_SPACE = 0,
  ACCELMM_TIMELINE_JOBS = 1,
  ACCELMM_TIMELINE_PRESSURE = 2, /* control nodes only: a point is reached when the device's memory
                                    gets short, shorter, or no longer is; the next one is
                                    accelmm_info_usage.pressure_changes + 1 */
};

/* --- INFO: facts, fixed and dynamic; on both nodes --- */
#define ACCELMM_INFO_DATA_SIZE 472
struct accelmm_info {
  __u32 topic; /* ACCELMM_INFO_*, or a driver's own from ACCELMM_INFO_DRIVER on */
  __u32 size;  /* in: 0; out: bytes that the topic has, of which data holds what fits */
  __u8 data[ACCELMM_INFO_DATA_SIZE]; /* out */
};
#define ACCELMM_IOCTL_INFO ACCELMM_IOWR(0x00, struct accelmm_info)

enum {
  ACCELMM_INFO_DEVICE = 0,
  ACCELMM_INFO_USAGE = 1,
  ACCELMM_INFO_SESSION = 2,
  ACCELMM_INFO_FAULT = 3,
  ACCELMM_INFO_DRIVER = 0x1000,
};

enum {
  ACCELMM_STATUS_OPERATIONAL = 0,
  ACCELMM_STATUS_REMOVED = 6, /* 1-5 are kept for the states around reset */
};

/* ACCELMM_INFO_DEVICE: what does not change while the device is registered. */
struct accelmm_info_device {
  __u8 driver[ACCELMM_NAME_SIZE];
  __u8 mmu_format[ACCELMM_NAME_SIZE]; /* empty: the device has no MMU */
  __u32 driver_version;               /* major << 16 | minor */
  __u32 number;
  __u32 node;             /* of this session: ACCELMM_NODE_* */
  __u32 exclusive;        /* 1: one compute session at a time */
  __u64 memory_size;      /* device memory that sessions can allocate, bytes */
  __u64 memory_page_size; /* bytes */
  __u64 host_page_size;   /* bytes */
  __u64 host_window_size; /* bytes */
  __u64 va_begin;         /* device addresses that an address space can map */
  __u64 va_end;
};

/* ACCELMM_INFO_USAGE: how the device is used now. Counters only grow. */
struct accelmm_info_usage {
  __u32 status; /* ACCELMM_STATUS_* */
  __u32 compute_sessions;
  __u32 control_sessions;
  __u32 reserved;
  __u64 memory_total; /* device memory for sessions, bytes */
  __u64 memory_used;
  __u64 host_used;        /* host buffers of this device's sessions, bytes */
  __u64 page_table_bytes; /* tables of all address spaces */
  __u64 mappings;         /* device mappings now */
  __u64 buffers;          /* buffers and imports now */
  __u64 exports_total;
  __u64 imports_total;
  __u64 sessions_total;
  __u64 ioctls_total;
  __u64 faults_total;
  __u64 jobs_total;     /* points reached or failed on job timelines */
  __u64 engine_busy_ns; /* sum over the device's engines */
  __u64 time_ns;        /* CLOCK_MONOTONIC when this was read */
  __u64 memory_free;    /* device memory that is free or kept empty, bytes */
  __u32 pressure;       /* ACCELMM_PRESSURE_* */
  __u32 reserved2;
  __u64 pressure_low;      /* below so many free bytes the pressure is LOW; 0: never */
  __u64 pressure_critical; /* below so many it is CRITICAL; 0: never */
  __u64 pressure_changes;  /* how often the pressure changed */
  __u64 memory_failures;   /* requests of device memory that ended with ENOMEM */
  __u64 quota_failures;    /* and with EDQUOT */
  __u64 moves_total;       /* extents moved to make room */
  __u64 moved_bytes_total;
};

/* How short of memory a device is. The thresholds are the driver's. */
enum {
  ACCELMM_PRESSURE_NONE = 0,
  ACCELMM_PRESSURE_LOW = 1,
  ACCELMM_PRESSURE_CRITICAL = 2,
};

/* ACCELMM_INFO_SESSION: the caller's own session (compute nodes). */
struct accelmm_info_session {
  __u64 session;
  __u32 asid;
  __u32 reserved;
  __u64 buffers;
  __u64 buffer_bytes;
  __u64 mappings;
  __u64 mapped_bytes;
  __u64 page_table_bytes;
  __u64 quota_bytes;
  __u64 quota_buffers;
  __u64 quota_mappings;
};

enum {
  ACCELMM_ACCESS_READ = 1,
  ACCELMM_ACCESS_WRITE = 2,
};

/* ACCELMM_INFO_FAULT: the last fault of this session's jobs, or on a control node the device's. */
struct accelmm_info_fault {
  __u64 count;   /* faults so far; 0: the rest is 0 */
  __u64 address; /* device address that the engine used */
  __u64 time_ns; /* CLOCK_MONOTONIC */
  __u64 point;   /* job that faulted: value on the job timeline */
  __u32 access;  /* ACCELMM_ACCESS_* that was refused */
  __u32 asid;
  __u32 engine; /* driver's numbering */
  __u32 level;  /* page-table level where the walk ended, 0 the root */
};

/* --- buffers --- */
enum {
  ACCELMM_DOMAIN_HOST = 0,   /* CPU-mappable host memory */
  ACCELMM_DOMAIN_DEVICE = 1, /* memory of the device */
};
enum {
  ACCELMM_ALLOC_CONTIGUOUS = 1 << 0,   /* device memory: one extent, or ENOMEM */
  ACCELMM_ALLOC_CPU_VISIBLE = 1 << 1,  /* device memory: can be mapped by the CPU and exported */
  ACCELMM_ALLOC_CPU_READ_ONLY = 1 << 2 /* writable to nobody but the driver process */
};

/* How host memory is wanted; what is 0 is as the driver process prefers. */
enum {
  ACCELMM_PAGES_DEFAULT = 0,     /* as the driver process prefers */
  ACCELMM_PAGES_BASE = 1,        /* the host's smallest */
  ACCELMM_PAGES_TRANSPARENT = 2, /* huge where the kernel finds some */
  ACCELMM_PAGES_HUGE_2M = 3,     /* of the kernel's pool of 2 MiB pages */
  ACCELMM_PAGES_HUGE_1G = 4,     /* of the kernel's pool of 1 GiB pages */
};
enum {
  ACCELMM_NODES_ANY = 0,
  ACCELMM_NODES_PREFERRED = 1,  /* these first, others when they are full */
  ACCELMM_NODES_BIND = 2,       /* these and no others */
  ACCELMM_NODES_INTERLEAVE = 3, /* in turn on each of these */
};
enum {
  ACCELMM_BACKING_EXACT = 1 << 0,        /* what cannot be had is an error, not the next best */
  ACCELMM_BACKING_LOCK = 1 << 1,         /* not to be swapped out */
  ACCELMM_BACKING_NO_DUMP = 1 << 2,      /* not in core dumps of the driver process */
  ACCELMM_BACKING_ZERO_ON_FREE = 1 << 3, /* cleared before it goes back to the kernel */
  ACCELMM_BACKING_PREFAULT = 1 << 4,     /* all pages at once; ALLOC does not wait for them */
  ACCELMM_BACKING_IMPORTABLE = 1 << 5, /* kernel drivers and other driver processes can import it */
};
struct accelmm_backing_request {
  __u32 pages;     /* ACCELMM_PAGES_* */
  __u32 node_rule; /* ACCELMM_NODES_* */
  __u64 nodes;     /* bit n: node n; 0 exactly if the rule is ANY */
  __u32 flags;     /* ACCELMM_BACKING_* */
  __u32 reserved;
};

struct accelmm_alloc {
  __u64 size; /* in: bytes, > 0; out: rounded up to pages */
  __u32 domain;
  __u32 flags;
  __u64 handle;                           /* out */
  struct accelmm_backing_request backing; /* device memory: all 0 */
};
#define ACCELMM_IOCTL_ALLOC ACCELMM_IOWR(0x01, struct accelmm_alloc)

/* Drops the handle. Mappings, exports and imports keep the memory until they end. */
struct accelmm_free {
  __u64 handle;
};
#define ACCELMM_IOCTL_FREE ACCELMM_IOW(0x02, struct accelmm_free)

/* A piece of a buffer for the CPU: a descriptor to mmap(MAP_SHARED) at fd_offset. One of a pool's
 * pages is mapped, and unmapped, in whole such pages. */
struct accelmm_map_cpu {
  __u64 handle;
  __u64 offset;    /* multiple of the host page size */
  __u64 length;    /* > 0, multiple of the host page size */
  __u32 access;    /* ACCELMM_ACCESS_* */
  __u32 fd;        /* out: index of the descriptor in the reply */
  __u64 fd_offset; /* out: where the piece begins in the descriptor */
};
#define ACCELMM_IOCTL_MAP_CPU ACCELMM_IOWR(0x03, struct accelmm_map_cpu)

enum {
  ACCELMM_PLACE_ANYWHERE = 0,
  ACCELMM_PLACE_HINT = 1,  /* at `address` if it is free, else anywhere */
  ACCELMM_PLACE_FIXED = 2, /* at `address`, or EADDRINUSE */
};
struct accelmm_map_device {
  __u64 handle;
  __u64 offset; /* multiple of the device's page size */
  __u64 length;
  __u64 address; /* in: hint or fixed address; out: where it is */
  __u32 placement;
  __u32 access;
  struct accelmm_point point; /* out: reached when the device can use it */
};
#define ACCELMM_IOCTL_MAP_DEVICE ACCELMM_IOWR(0x04, struct accelmm_map_device)

struct accelmm_unmap_device {
  __u64 address;              /* where a mapping begins */
  struct accelmm_point point; /* out: reached when the device cannot use it any more */
};
#define ACCELMM_IOCTL_UNMAP_DEVICE ACCELMM_IOWR(0x05, struct accelmm_unmap_device)

/* --- sharing --- */
struct accelmm_piece {
  __u32 fd; /* index of the descriptor in the packet */
  __u32 reserved;
  __u64 offset;
  __u64 length;
};
#define ACCELMM_MAX_PIECES ACCELMM_MAX_FDS

/* A view as a list of {fd, offset, length}; the descriptors come with the reply. */
struct accelmm_export {
  __u64 handle;
  __u64 offset;
  __u64 length;
  __u32 flags;                                     /* none defined: 0 */
  __u32 count;                                     /* out: pieces used */
  struct accelmm_piece pieces[ACCELMM_MAX_PIECES]; /* out */
};
#define ACCELMM_IOCTL_EXPORT ACCELMM_IOWR(0x06, struct accelmm_export)

/* Makes a buffer of a list of sealed memfds or dma-bufs; the descriptors come with the request. */
struct accelmm_import {
  __u64 handle; /* out */
  __u64 size;   /* out */
  __u32 flags;  /* in: none defined: 0 */
  __u32 count;  /* in */
  __u32 access; /* out: ACCELMM_ACCESS_* that the import allows */
  __u32 reserved;
  struct accelmm_piece pieces[ACCELMM_MAX_PIECES]; /* in */
};
#define ACCELMM_IOCTL_IMPORT ACCELMM_IOWR(0x07, struct accelmm_import)

/* --- waiting --- */
/* Replies when the point is reached (0), its job failed (the job's errno), or the deadline passed
 * (ETIMEDOUT). */
struct accelmm_wait {
  struct accelmm_point point;
  __u64 deadline_ns; /* CLOCK_MONOTONIC; 0 only asks */
};
#define ACCELMM_IOCTL_WAIT ACCELMM_IOW(0x08, struct accelmm_wait)

/* A descriptor to poll: readable when a watched point is reached, hung up when the driver is gone.
 * Each read(2) of it returns one struct accelmm_event. */
struct accelmm_events {
  __u32 fd; /* out: index of the descriptor in the reply */
  __u32 reserved;
};
#define ACCELMM_IOCTL_EVENTS ACCELMM_IOWR(0x09, struct accelmm_events)

/* Asks for one event when the point is reached or failed. ENOTCONN before ACCELMM_IOCTL_EVENTS. */
struct accelmm_watch {
  struct accelmm_point point;
};
#define ACCELMM_IOCTL_WATCH ACCELMM_IOW(0x0a, struct accelmm_watch)

struct accelmm_event {
  struct accelmm_point point;
  __s32 status; /* 0, or the negative errno of the job */
  __u32 lost;   /* events dropped before this one because nobody read */
};

/* --- how memory was made --- */
enum {
  ACCELMM_PREFAULT_NONE = 0, /* not asked for, or refused */
  ACCELMM_PREFAULT_RUNNING = 1,
  ACCELMM_PREFAULT_DONE = 2,
  ACCELMM_PREFAULT_FAILED = 3, /* refused_prefault says why; what is there stays */
};
/* What became of an accelmm_backing_request. EOPNOTSUPP: memory without a file. */
struct accelmm_backing {
  __u64 handle;
  __u64 deadline_ns;     /* in: CLOCK_MONOTONIC, how long to wait for a prefault; 0 only asks */
  __u32 pages;           /* out, as all that follows: ACCELMM_PAGES_*, what was taken */
  __u32 prefault;        /* ACCELMM_PREFAULT_* */
  __u64 page_size;       /* bytes of the largest page that this kind has */
  __u64 populated;       /* bytes that the kernel has taken for it, in memory or in swap */
  __u64 prefaulted;      /* bytes that were made at once so far */
  __u64 locked;          /* bytes */
  __u64 nodes;           /* bit n: a sampled page is on node n */
  __u32 samples;         /* pages looked at, evenly over the buffer */
  __u32 samples_present; /* of these: mapped in the driver process */
  __u32 samples_huge;    /* of these: in a huge page */
  __s32 refused_pages;   /* 0, or the negative errno of what could not be had */
  __s32 refused_nodes;
  __s32 refused_lock;
  __s32 refused_dump;
  __s32 refused_prefault;
  __s32 refused_sample;
  __u32 reserved;
};
#define ACCELMM_IOCTL_BACKING ACCELMM_IOWR(0x0b, struct accelmm_backing)

/* --- why there is no device memory; on both nodes --- */
#define ACCELMM_SHORTAGE_OWNERS 16
#define ACCELMM_SHORTAGE_RUNS 16
/* Who holds device memory. Bytes are those of whole native pages, but for `requested`. */
struct accelmm_shortage_owner {
  __u64 session;
  __u64 uid;
  __u64 held;        /* what is freed and waits for the device included */
  __u64 peak;        /* of held */
  __u64 requested;   /* what was asked for, of what is held */
  __u64 pending;     /* of requested: freed, and waiting for the device */
  __u64 allocations; /* now */
  __u32 ended;       /* 1: the session has ended, and something holds its memory */
  __u32 reserved;
};
/*
 * Why a request of device memory fails, or would: as things are now, not as they were.
 *
 * A compute node tells the totals, and of who holds what its own session. A control node tells of
 * all sessions; its mode says who may know. Errors: EOPNOTSUPP the device has no memory.
 */
struct accelmm_shortage {
  __u64 size;  /* in: of the request to explain, bytes; 0: that of this session which failed last,
                  on a control node the device's; out: rounded up as it would be, 0: there is none */
  __u32 flags; /* in: ACCELMM_ALLOC_*, as it was or would be asked for; out: of the request */
  __u32 owner_count;     /* out, as all that follows: of `owners` that are used */
  __u64 other_owners;    /* sessions that hold device memory, or did, and are not shown */
  __u64 memory_failures; /* requests that ended with ENOMEM: this session's, or all */
  __u64 quota_failures;  /* and with EDQUOT */
  __u64 failed_session;  /* of the request that failed last; 0: none did */
  __u64 failed_uid;      /* its user */
  __u64 failed_ns;       /* CLOCK_MONOTONIC */
  __s32 failed_status;   /* its negative errno */
  __u32 pressure;        /* ACCELMM_PRESSURE_* */
  __u64 native_page;     /* bytes */
  __u64 total;           /* bytes, as all that follows */
  __u64 free;            /* native pages */
  __u64 largest_free;    /* longest run of free native pages */
  __u64 spare;           /* empty native pages kept for small pieces: given up before an error */
  __u64 pending;         /* held by what waits for the device */
  __u64 private_size;    /* the device's own: page tables, firmware */
  __u64 moving;          /* held twice while something is moved */
  __u64 small_slack;     /* held by small pieces beyond what was asked for */
  __u64 quota_left;      /* of the session that asks and its user; 0: it has ended */
  __u64 moves_to_make;   /* least bytes to move for one run that is long enough; 0: none helps */
  __u64 free_in_runs[ACCELMM_SHORTAGE_RUNS]; /* [k]: free in runs of 2^k native pages or more */
  struct accelmm_shortage_owner owners[ACCELMM_SHORTAGE_OWNERS]; /* who holds most, most first */
};
#define ACCELMM_IOCTL_SHORTAGE ACCELMM_IOWR(0x0c, struct accelmm_shortage)

/* --- making room; control nodes --- */
/*
 * Moves device memory of sessions so that one free run is `run` bytes long, or, if that is 0, so that
 * native pages which small pieces share become empty. All moves of the plan are made, or none; none
 * where nothing needs to be moved or nothing helps within the budget. What a CPU may see stays where
 * it is, and what belongs to a session with a job that has not ended. Calls of sessions whose memory
 * is moved wait meanwhile.
 *
 * Errors: EPERM the caller is neither root, nor the user of the driver process, nor the owner of the
 * nodes. EOPNOTSUPP the device cannot. EBUSY it is at it already. EINVAL no budget. Any errno that the
 * device fails with.
 */
struct accelmm_defragment {
  __u64 budget;       /* in: bytes moved at most, > 0 */
  __u64 run;          /* in: bytes of the free run that is wanted, or 0 */
  __u64 moves;        /* out: extents moved */
  __u64 moved;        /* out: their bytes */
  __u64 free;         /* out: bytes that are free now */
  __u64 largest_free; /* out: bytes of the longest free run now */
};
#define ACCELMM_IOCTL_DEFRAGMENT ACCELMM_IOWR(0x0d, struct accelmm_defragment)

/* --- memory in place --- */

/*
 * Maps memory of the calling process as it lies there, without a buffer. Ended by UNMAP_DEVICE.
 * EOPNOTSUPP: the caller is another process than the driver's, or the device does not reach host
 * memory through an IOMMU.
 */
struct accelmm_map_memory {
  __u64 memory; /* where it is for the CPU; whole pages */
  __u64 length;
  __u64 address; /* in: hint or fixed address; out: where it is for the device */
  __u32 placement;
  __u32 access;
  struct accelmm_point point; /* out: reached when the device can use it */
};
#define ACCELMM_IOCTL_MAP_MEMORY ACCELMM_IOWR(0x0e, struct accelmm_map_memory)

#ifdef __cplusplus
} /* extern "C" */

static_assert(sizeof(struct accelmm_message_header) == 24, "wire format");
static_assert(sizeof(struct accelmm_hello) == 40, "wire format");
static_assert(sizeof(struct accelmm_point) == 16, "wire format");
static_assert(sizeof(struct accelmm_info) == 480, "wire format");
static_assert(sizeof(struct accelmm_info_device) == 128, "wire format");
static_assert(sizeof(struct accelmm_info_usage) == 200, "wire format");
static_assert(sizeof(struct accelmm_info_session) == 80, "wire format");
static_assert(sizeof(struct accelmm_info_fault) == 48, "wire format");
static_assert(sizeof(struct accelmm_backing_request) == 24, "wire format");
static_assert(sizeof(struct accelmm_alloc) == 48, "wire format");
static_assert(sizeof(struct accelmm_free) == 8, "wire format");
static_assert(sizeof(struct accelmm_map_cpu) == 40, "wire format");
static_assert(sizeof(struct accelmm_map_device) == 56, "wire format");
static_assert(sizeof(struct accelmm_unmap_device) == 24, "wire format");
static_assert(sizeof(struct accelmm_piece) == 24, "wire format");
static_assert(sizeof(struct accelmm_export) == 224, "wire format");
static_assert(sizeof(struct accelmm_import) == 224, "wire format");
static_assert(sizeof(struct accelmm_wait) == 24, "wire format");
static_assert(sizeof(struct accelmm_events) == 8, "wire format");
static_assert(sizeof(struct accelmm_watch) == 16, "wire format");
static_assert(sizeof(struct accelmm_event) == 24, "wire format");
static_assert(sizeof(struct accelmm_backing) == 104, "wire format");
static_assert(sizeof(struct accelmm_shortage_owner) == 64, "wire format");
static_assert(sizeof(struct accelmm_shortage) == 1312, "wire format");
static_assert(sizeof(struct accelmm_defragment) == 48, "wire format");
static_assert(sizeof(struct accelmm_map_memory) == 48, "wire format");
#endif

#endif /* ACCELMM_UAPI_H */
