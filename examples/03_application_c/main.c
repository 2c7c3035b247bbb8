/* SPDX-License-Identifier: Apache-2.0 */
/* An application in C: a buffer, a job that an event loop waits for, and a job that faults.
 *   03_application_c DIRECTORY    over the device of 01_driver */
#include "01_driver/inverter.h"

#include <accelmm/accelmm.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

static int give_up(const char* what, int error) {
  fprintf(stderr, "%s: %s\n", what, accelmm_error_text(error));
  return error;
}

/* Waits as an event loop would: with poll(), for the event of one point. Returns the job's outcome. */
static int wait_by_poll(accelmm_session* session, struct accelmm_point point) {
  struct accelmm_event event;
  struct pollfd events = {.fd = accelmm_event_get_fd(session), .events = POLLIN};
  int error = events.fd < 0 ? events.fd : accelmm_point_watch(session, point);
  if (error < 0) return give_up("watch", error);
  while ((error = accelmm_event_read(session, &event)) == 0)
    if (poll(&events, 1, -1) < 0 && errno != EINTR) return give_up("poll", -errno);
  return error < 0 ? give_up("event", error) : event.status;
}

static int invert(accelmm_session* session, uint64_t address, uint64_t size) {
  struct inverter_invert job;
  int error;
  memset(&job, 0, sizeof job);
  job.address = address;
  job.width = 64;
  job.height = (uint32_t)(size / 64);
  error = accelmm_session_ioctl(session, INVERTER_IOCTL_INVERT, &job, NULL);
  if (error < 0) return give_up("submit", error);
  return wait_by_poll(session, job.point);
}

static int use_buffer(accelmm_session* session, const struct accelmm_buffer* buffer,
                      unsigned char* pixels) {
  const struct accelmm_view whole = {buffer->handle, 0, buffer->size};
  struct accelmm_device_mapping mapped;
  struct accelmm_info_fault fault;
  uint64_t i;
  int error = accelmm_device_map(session, &whole, ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE, NULL,
                                 &mapped);
  if (error < 0) return give_up("map for the device", error);
  for (i = 0; i < buffer->size; ++i) pixels[i] = (unsigned char)(i & 0xFF);

  error = invert(session, mapped.address, buffer->size);
  if (error < 0) return give_up("job", error);
  for (i = 0; i < buffer->size; ++i) {
    if (pixels[i] == 255 - (i & 0xFF)) continue;
    fprintf(stderr, "pixel %llu is wrong\n", (unsigned long long)i);
    return -EIO;
  }
  printf("inverted %llu pixels\n", (unsigned long long)buffer->size);

  error = invert(session, mapped.address + buffer->size, buffer->size);
  if (error != -EFAULT) {
    fprintf(stderr, "a job beyond the buffer did not fault\n");
    return -EIO;
  }
  error = accelmm_info_read_fault(session, &fault, sizeof fault);
  if (error < 0) return give_up("fault", error);
  printf("as it should, the next job faulted at device address 0x%llx, hop %u\n",
         (unsigned long long)fault.address, fault.level);
  return 0;
}

int main(int argc, char** argv) {
  accelmm_session* session;
  struct accelmm_buffer buffer;
  struct accelmm_view whole;
  accelmm_mapping* pixels;
  char path[4096];
  int error;
  if (argc != 2) return fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]), 1;
  snprintf(path, sizeof path, "%s/accel0", argv[1]);
  error = accelmm_session_connect_path(path, &session);
  if (error < 0) return give_up("connect", error), 1;
  error = accelmm_buffer_allocate(session, 4096, ACCELMM_DOMAIN_HOST, 0, &buffer);
  if (error < 0) return give_up("allocate", error), 1;
  whole.handle = buffer.handle;
  whole.offset = 0;
  whole.length = buffer.size;
  error = accelmm_buffer_map(session, &whole, ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE, &pixels);
  if (error < 0) return give_up("map for the CPU", error), 1;
  error = use_buffer(session, &buffer, accelmm_mapping_address(pixels));
  accelmm_mapping_close(pixels);
  accelmm_session_close(session); /* frees the buffer and the device mapping */
  return error < 0 ? 1 : 0;
}
