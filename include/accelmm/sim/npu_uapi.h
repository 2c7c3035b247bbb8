/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ACCELMM_SIM_NPU_UAPI_H
#define ACCELMM_SIM_NPU_UAPI_H

/*
 * The ioctls of the NPU. All addresses are device addresses of the session.
 *
 * A job ends asynchronously: `point` is its point on the job timeline, for ACCELMM_IOCTL_WAIT. It ends with 0, with
 * EFAULT (an address is not mapped or not permitted; see ACCELMM_INFO_FAULT), or with ECANCELED (the session ended).
 * Jobs of a session run in the order of the calls. Errors of the calls: EINVAL a size, stride, shift or flag out of
 * bounds; EOVERFLOW the data ends beyond 64 bits; EDQUOT 4096 jobs of the session wait already.
 */

#include <accelmm/uapi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Copies bytes in ascending order. An overlapping destination is right if it begins below the source. */
struct accelmm_npu_copy {
  __u64 source;
  __u64 destination;
  __u64 length; /* bytes, > 0 */
  __u32 flags;  /* none defined: 0 */
  __u32 reserved;
  struct accelmm_point point; /* out */
};
#define ACCELMM_IOCTL_NPU_COPY ACCELMM_IOWR(ACCELMM_DRIVER_IOCTL_BEGIN + 0, struct accelmm_npu_copy)

enum {
  ACCELMM_NPU_ABSOLUTE = 1 << 0,  /* the magnitude of the weighed sum, instead of the sum */
  ACCELMM_NPU_ACCUMULATE = 1 << 1 /* add to what the destination holds, instead of replacing it */
};
#define ACCELMM_NPU_MAX_WIDTH 65536 /* pixels of a row: a line of the NPU's own memory */

/*
 * Convolves an image of 8-bit pixels with a 3x3 kernel. kernel[0] weighs the pixel above left of the one computed;
 * pixels beyond a border are those of the border.
 *
 *   sum   = nine products, >> shift (towards minus infinity), then the magnitude if ACCELMM_NPU_ABSOLUTE
 *   pixel = sum + bias, + the old pixel if ACCELMM_NPU_ACCUMULATE, cut to 0..255
 *
 * Source and destination may be the same image at the same stride.
 */
struct accelmm_npu_convolve {
  __u64 source;
  __u64 destination;
  __u64 source_stride;      /* bytes from row to row, >= width */
  __u64 destination_stride; /* the same */
  __u32 width;              /* pixels, 1 to ACCELMM_NPU_MAX_WIDTH */
  __u32 height;             /* > 0 */
  __u32 shift;              /* at most 31 */
  __s32 bias;
  __u32 flags; /* ACCELMM_NPU_* */
  __s8 kernel[9];
  __u8 reserved[3];
  struct accelmm_point point; /* out */
};
#define ACCELMM_IOCTL_NPU_CONVOLVE \
  ACCELMM_IOWR(ACCELMM_DRIVER_IOCTL_BEGIN + 1, struct accelmm_npu_convolve)

/* What the hardware counted since it was switched on. A topic of ACCELMM_IOCTL_INFO, on both nodes. */
#define ACCELMM_INFO_NPU (ACCELMM_INFO_DRIVER + 0)
struct accelmm_info_npu {
  __u64 jobs; /* ended, in whatever way */
  __u64 faults;
  __u64 canceled;
  __u64 tlb_hits;
  __u64 tlb_misses;  /* walks */
  __u64 table_reads; /* entries read by the walker */
  __u64 bytes_read;
  __u64 bytes_written;
  __u64 busy_ns;
};

#ifdef __cplusplus
} /* extern "C" */

static_assert(sizeof(struct accelmm_npu_copy) == 48, "wire format");
static_assert(sizeof(struct accelmm_npu_convolve) == 80, "wire format");
static_assert(sizeof(struct accelmm_info_npu) == 72, "wire format");
static_assert(sizeof(struct accelmm_info_npu) <= ACCELMM_INFO_DATA_SIZE, "fits one reply");
#endif

#endif /* ACCELMM_SIM_NPU_UAPI_H */
