//go:build !windows

package wharfage

import "syscall"

// diskFull are the errors of a store that has no room left.
var diskFull = []error{syscall.ENOSPC, syscall.EDQUOT}
