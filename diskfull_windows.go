package wharfage

import "syscall"

// diskFull are the errors of a store that has no room left.
var diskFull = []error{
	syscall.Errno(39),   // ERROR_HANDLE_DISK_FULL
	syscall.Errno(112),  // ERROR_DISK_FULL
	syscall.Errno(1295), // ERROR_DISK_QUOTA_EXCEEDED
	syscall.ENOSPC,      // from stores that speak of it in other systems' terms
	syscall.EDQUOT,
}
