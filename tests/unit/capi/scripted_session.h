/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ACCELMM_TESTS_SCRIPTED_SESSION_H
#define ACCELMM_TESTS_SCRIPTED_SESSION_H

#include <accelmm/accelmm.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A driver's own ioctl: doubles `value` and sends every descriptor back. */
struct scripted_args {
  uint64_t value;
};
#define SCRIPTED_IOCTL ACCELMM_IOWR(0x40, struct scripted_args)

/* Makes a session with a driver process of a few lines in this process, or NULL. */
accelmm_session* scripted_session_connect(void);
/* Lets that driver write the event that point `value` of the jobs was reached. */
void scripted_session_write_event(uint64_t value);

#ifdef __cplusplus
}
#endif

#endif /* ACCELMM_TESTS_SCRIPTED_SESSION_H */
