// SPDX-License-Identifier: Apache-2.0
//
// Holds the precompiled <gtest/gtest.h> that all tests read: parsing it takes longer than most of them.
#include <gtest/gtest.h>
