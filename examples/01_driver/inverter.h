/* SPDX-License-Identifier: Apache-2.0 */
/* What the inverter's driver and its applications agree on: one ioctl. */
#ifndef INVERTER_H
#define INVERTER_H

#include <accelmm/uapi.h>

/* Turns a picture of 8-bit pixels into its negative, in place. */
struct inverter_invert {
  __u64 address; /* device address of the first pixel */
  __u32 width;   /* 1 to 65536; rows lie without gaps */
  __u32 height;
  struct accelmm_point point; /* out: reached when it is done */
};
#define INVERTER_IOCTL_INVERT ACCELMM_IOWR(ACCELMM_DRIVER_IOCTL_BEGIN, struct inverter_invert)

#endif
