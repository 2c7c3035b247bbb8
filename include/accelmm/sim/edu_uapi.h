/* SPDX-License-Identifier: Apache-2.0 */
/* What the edu device's driver and its applications agree on. */
#ifndef ACCELMM_EDU_UAPI_H
#define ACCELMM_EDU_UAPI_H

#include <accelmm/uapi.h>

/* Bytes of the device's buffer that can be used: its 4096th would be beyond what QEMU's check lets
 * a transfer end at. */
#define ACCELMM_EDU_BUFFER_SIZE 4095

/* Moves bytes between mapped memory and the device's buffer, by the device's own DMA. */
struct accelmm_edu_copy {
  __u64 address;              /* device address of the memory, any byte of a mapping */
  __u32 offset;               /* into the device's buffer */
  __u32 length;               /* 1 to ACCELMM_EDU_BUFFER_SIZE - offset */
  struct accelmm_point point; /* out: reached when it is done; ETIMEDOUT if it never is */
};
/* Memory to device: the mapping must be readable. */
#define ACCELMM_IOCTL_EDU_COPY_IN ACCELMM_IOWR(0x40, struct accelmm_edu_copy)
/* Device to memory: the mapping must be writable. */
#define ACCELMM_IOCTL_EDU_COPY_OUT ACCELMM_IOWR(0x41, struct accelmm_edu_copy)

/* A topic of ACCELMM_IOCTL_INFO. */
#define ACCELMM_INFO_EDU (ACCELMM_INFO_DRIVER + 0)
struct accelmm_info_edu {
  __u64 transfers;  /* that ended well */
  __u64 bytes;      /* of these */
  __u64 interrupts; /* that were the device's */
  __u64 timeouts;
  __u32 version;   /* major << 8 | minor, as the device says */
  __u32 interrupt; /* 0: MSI-X, 1: MSI, 2: the line */
};

#endif
