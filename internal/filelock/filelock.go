// Package filelock locks open files against other processes. A lock ends when the file
// is closed or its process ends: none is ever stale. The content of a locked file can
// still be read by others.
package filelock

import "errors"

// ErrLocked says that another process holds a lock.
var ErrLocked = errors.New("locked by another process")
