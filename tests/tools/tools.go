// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools is never compiled. critest is the test binary of a package that has nothing but a
// test, which a `tool` line of go.mod cannot name; this import makes `go mod tidy` keep what it
// needs.
package tools

import _ "sigs.k8s.io/cri-tools/cmd/critest"
