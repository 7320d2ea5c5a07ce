// Package version names this build of Kiln.
package version

// Version is set by the linker (see the Makefile); "devel" otherwise.
var Version = "devel"
