/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of accelmm.h, used from C99 as an application would. */
#define _POSIX_C_SOURCE 200809L
#include "unit/capi/scripted_session.h"

#include <accelmm/accelmm.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* In every build type, unlike assert(). */
#define EXPECT(condition)                                                     \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

enum { page = 4096 };

static void test_version_and_errors(void) {
  char text[32];
  snprintf(text, sizeof(text), "%u.%u.%u", accelmm_version_number() >> 16,
           accelmm_version_number() >> 8 & 0xff, accelmm_version_number() & 0xff);
  EXPECT(strcmp(text, accelmm_version_text()) == 0);
  EXPECT(accelmm_version_number() == ACCELMM_VERSION_NUMBER);
  EXPECT(strcmp(accelmm_error_text(-EBUSY), accelmm_error_text(EBUSY)) == 0);
  EXPECT(strcmp(accelmm_error_text(0), accelmm_error_text(EBUSY)) != 0);
}

static void test_connecting_to_nothing(void) {
  accelmm_session* session = NULL;
  EXPECT(accelmm_session_connect_path("/nonexistent/accel0", &session) == -ENODEV);
  EXPECT(session == NULL);
  EXPECT(accelmm_session_connect(0, 2, &session) == -EINVAL);
  EXPECT(accelmm_session_connect(256, ACCELMM_NODE_CONTROL, &session) == -ENODEV);
}

static void test_facts(accelmm_session* session) {
  uint64_t number = 0;
  struct accelmm_info_device device;
  struct accelmm_info_usage usage;
  struct accelmm_info_session own;
  struct accelmm_info_fault fault;
  char text[2] = "";
  EXPECT(accelmm_session_get_node(session) == ACCELMM_NODE_COMPUTE);
  EXPECT(accelmm_session_get_device(session) == 3);
  EXPECT(accelmm_session_get_number(session, &number) == 0 && number == 17);
  EXPECT(accelmm_info_read_device(session, &device, sizeof(device)) == 0);
  EXPECT(strcmp((const char*)device.driver, "scripted") == 0);
  EXPECT(accelmm_info_read_usage(session, &usage, sizeof(usage)) == 0);
  EXPECT(accelmm_info_read_session(session, &own, sizeof(own)) == 0);
  EXPECT(accelmm_info_read_fault(session, &fault, sizeof(fault)) == 0 && fault.count == 0);
  EXPECT(accelmm_info_read_driver(session, 1, text, sizeof(text)) == 3);
  EXPECT(text[0] == 'h' && text[1] == 'i');
  EXPECT(accelmm_info_read_driver(session, 2, text, sizeof(text)) == -EINVAL);
}

static void test_buffer(accelmm_session* session) {
  struct accelmm_buffer buffer;
  struct accelmm_view view;
  accelmm_mapping* mapping = NULL;
  unsigned char* bytes;
  struct accelmm_device_mapping device;
  struct accelmm_placement fixed = {ACCELMM_PLACE_FIXED, 0, 0x10000};
  struct accelmm_point point;
  EXPECT(accelmm_buffer_allocate(session, 2 * page + 1, ACCELMM_DOMAIN_HOST, 0, &buffer) == 0);
  EXPECT(buffer.size == 3 * page);
  EXPECT(buffer.access == (ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE));
  view.handle = buffer.handle;
  view.offset = page;
  view.length = 2 * page;
  EXPECT(accelmm_buffer_map(session, &view, ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE, &mapping) ==
         0);
  EXPECT(accelmm_mapping_length(mapping) == 2 * page);
  bytes = accelmm_mapping_address(mapping);
  EXPECT(bytes[0] == 0);
  bytes[0] = 1;
  EXPECT(accelmm_device_map(session, &view, ACCELMM_ACCESS_READ, &fixed, &device) == 0);
  EXPECT(device.address == 0x10000);
  EXPECT(device.point.timeline == ACCELMM_TIMELINE_ADDRESS_SPACE);
  EXPECT(accelmm_point_wait(session, device.point, ACCELMM_NO_DEADLINE) == 0);
  EXPECT(accelmm_device_unmap(session, device.address, &point) == 0);
  EXPECT(point.value == device.point.value + 1);
  EXPECT(accelmm_device_map(session, &view, ACCELMM_ACCESS_READ, NULL, &device) == 0);
  EXPECT(accelmm_device_unmap(session, device.address, NULL) == 0);
  EXPECT(accelmm_buffer_free(session, buffer.handle) == 0);
  EXPECT(accelmm_buffer_free(session, buffer.handle) == -EINVAL);
  bytes[1] = 1; /* the mapping keeps the memory */
  accelmm_mapping_close(mapping);
}

static void test_backing(accelmm_session* session) {
  struct accelmm_backing_request request = {ACCELMM_PAGES_HUGE_2M, ACCELMM_NODES_BIND, 1,
                                            ACCELMM_BACKING_LOCK, 0};
  struct accelmm_buffer buffer;
  struct {
    struct accelmm_backing known;
    uint64_t newer;
  } backing;
  uint64_t older[2] = {~0ULL, ~0ULL};
  EXPECT(accelmm_buffer_allocate_backed(session, page, ACCELMM_DOMAIN_HOST, 0, &request, &buffer) ==
         0);
  EXPECT(buffer.size == page);
  backing.newer = 1;
  EXPECT(accelmm_buffer_get_backing(session, buffer.handle, 0, &backing.known, sizeof(backing)) ==
         0);
  EXPECT(backing.known.pages == ACCELMM_PAGES_TRANSPARENT && backing.known.handle == buffer.handle);
  EXPECT(backing.known.refused_pages == -EPERM && backing.newer == 0);
  EXPECT(accelmm_buffer_get_backing(session, buffer.handle, 0, (struct accelmm_backing*)older,
                                    sizeof(older[0])) == 0);
  EXPECT(older[0] == buffer.handle && older[1] == ~0ULL);
  EXPECT(accelmm_buffer_get_backing(session, 1, 0, &backing.known, sizeof(backing)) == -EINVAL);
  EXPECT(accelmm_buffer_allocate_backed(session, page, ACCELMM_DOMAIN_HOST, 0, NULL, &buffer) == 0);
}

static void test_sharing(accelmm_session* session) {
  struct accelmm_buffer buffer;
  struct accelmm_buffer imported;
  struct accelmm_view view;
  struct accelmm_shared_view sent;
  struct accelmm_shared_view received;
  int ends[2];
  EXPECT(accelmm_buffer_allocate(session, page, ACCELMM_DOMAIN_HOST, 0, &buffer) == 0);
  view.handle = buffer.handle;
  view.offset = 0;
  view.length = page;
  EXPECT(accelmm_buffer_export(session, &view, &sent) == 0);
  EXPECT(sent.count == 1 && sent.pieces[0].length == page);
  EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
  EXPECT(accelmm_shared_view_send(ends[0], &sent) == 0);
  EXPECT(accelmm_shared_view_receive(ends[1], &received) == 0);
  EXPECT(received.count == 1 && received.pieces[0].length == page);
  EXPECT(accelmm_buffer_import(session, &received, &imported) == 0);
  EXPECT(imported.size == page && imported.access == ACCELMM_ACCESS_READ);
  EXPECT(close(sent.pieces[0].fd) == 0 && close(received.pieces[0].fd) == 0);
  EXPECT(close(ends[0]) == 0);
  EXPECT(accelmm_shared_view_receive(ends[1], &received) == -ECONNRESET);
  EXPECT(received.count == 0);
  EXPECT(close(ends[1]) == 0);
}

static void test_ioctl(accelmm_session* session) {
  struct scripted_args args = {21};
  struct accelmm_ioctl_fds fds;
  memset(&fds, 0, sizeof(fds));
  EXPECT(accelmm_session_ioctl(session, SCRIPTED_IOCTL, &args, NULL) == 0 && args.value == 42);
  fds.in_count = 1;
  fds.in[0] = STDERR_FILENO;
  EXPECT(accelmm_session_ioctl(session, SCRIPTED_IOCTL, &args, &fds) == 0);
  EXPECT(fds.out_count == 1 && fcntl(fds.out[0], F_GETFD) == FD_CLOEXEC);
  EXPECT(close(fds.out[0]) == 0);
  EXPECT(accelmm_session_ioctl(session, ACCELMM_IO(0x41), NULL, &fds) == -ENOTTY);
  EXPECT(fds.out_count == 0);
}

static void test_events(accelmm_session* session) {
  struct accelmm_point point = {ACCELMM_TIMELINE_JOBS, 0, 7};
  struct accelmm_event event;
  struct pollfd poll_fd;
  EXPECT(accelmm_event_read(session, &event) == 0);
  EXPECT(accelmm_point_watch(session, point) == 0);
  poll_fd.fd = accelmm_event_get_fd(session);
  poll_fd.events = POLLIN;
  EXPECT(poll_fd.fd >= 0 && poll(&poll_fd, 1, 0) == 0);
  scripted_session_write_event(7);
  EXPECT(poll(&poll_fd, 1, 0) == 1);
  EXPECT(accelmm_event_read(session, &event) == 1 && event.point.value == 7);
  EXPECT(accelmm_point_wait(session, point, 0) == -ETIMEDOUT);
}

static void test_shortage(accelmm_session* session) {
  struct {
    struct accelmm_shortage known;
    uint64_t newer;
  } shortage;
  struct accelmm_defragment made;
  char text[4096];
  char cut[8];
  int length;
  shortage.newer = 1;
  EXPECT(accelmm_shortage_read(session, 3 * page, 0, &shortage.known, sizeof(shortage)) == 0);
  EXPECT(shortage.known.size == 3 * page && shortage.known.owner_count == 2);
  EXPECT(shortage.known.owners[1].ended == 1 && shortage.newer == 0);
  length = accelmm_shortage_text(&shortage.known, sizeof(shortage), text, sizeof(text));
  EXPECT(length > 0 && (size_t)length == strlen(text));
  EXPECT(strstr(text, "session 17 of uid 1000 holds") != NULL);
  EXPECT(accelmm_shortage_text(&shortage.known, sizeof(shortage), NULL, 0) == length);
  EXPECT(accelmm_shortage_text(&shortage.known, sizeof(shortage), cut, sizeof(cut)) == length);
  EXPECT(strlen(cut) == 7 && strncmp(cut, text, 7) == 0);
  EXPECT(accelmm_memory_defragment(session, 4 * page, page, &made, sizeof(made)) == 0);
  EXPECT(made.budget == 4 * page && made.run == page && made.moves == 2 && made.moved == 2 * page);
}

int main(void) {
  accelmm_session* session;
  test_version_and_errors();
  test_connecting_to_nothing();
  session = scripted_session_connect();
  EXPECT(session != NULL);
  test_facts(session);
  test_shortage(session);
  test_buffer(session);
  test_backing(session);
  test_sharing(session);
  test_ioctl(session);
  test_events(session);
  accelmm_session_close(session);
  return 0;
}
