// Package qemutests boots what imagegen builds and asks the running cluster
// whether it is what it should be. Its tests have the build tag boot, because
// they take minutes and emulate a whole machine:
//
//	go test -tags boot -v ./qemu-tests/...
//
// KILN_IMAGEGEN names an imagegen to use instead of building one. KILN_ARTIFACTS
// names a folder in which consoles and diagnostics are kept; without it they are
// kept, in a temporary folder whose path is printed, only if a test fails.
package qemutests
