/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI from the installed package, compiled as C99: the library that runs is the one whose
 * header was compiled, and where no driver serves a call fails as the header says.
 */
#include <accelmm/accelmm.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int failed(const char* what) {
  fprintf(stderr, "consumer_c: %s\n", what);
  return 1;
}

int main(void) {
  accelmm_session* session = NULL;
  char version[32];

  if (accelmm_version_number() != ACCELMM_VERSION_NUMBER)
    return failed("another library than the header's");
  sprintf(version, "%d.%d.%d", ACCELMM_VERSION_MAJOR, ACCELMM_VERSION_MINOR, ACCELMM_VERSION_PATCH);
  if (strcmp(accelmm_version_text(), version) != 0) return failed("the version's text is another");
  if (accelmm_session_connect_path("/nonexistent/accel0", &session) != -ENODEV)
    return failed("a node that is not there gives another error than ENODEV");
  if (session != NULL) return failed("a failed connect gave a session");
  if (accelmm_session_connect_path(NULL, &session) != -EINVAL) return failed("NULL is not EINVAL");
  if (strcmp(accelmm_error_text(-ENODEV), accelmm_error_text(ENODEV)) != 0)
    return failed("the sign of an error changes its text");
  if (strcmp(accelmm_error_text(-ENODEV), accelmm_error_text(-EINVAL)) == 0)
    return failed("two errors have one text");
  accelmm_session_close(NULL);
  return 0;
}
