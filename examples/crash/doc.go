// Package crash breaks the stores and the registry that ships, and looks what
// is left: of power at every system call that writes, of the process at any
// moment, of space on the disk. Its tests are all it has, for Linux:
//
//	go test ./examples/crash
//	go test ./examples/crash -histories 200 -rounds 120 -writing 25s -large 1024 -timeout 30m
//
// # Power loss
//
// A process runs a random history of pushes and deletions against a store,
// under strace, and says of each operation when it begins and when it has
// succeeded. The log of its system calls is played on a model of a disk, which
// keeps what was synced, and of the rest nothing, or all that is not content of files, or
// what a seed says. Whatever the disk keeps at any point of the log is written
// to a folder and opened as a store, which must have all that was acknowledged
// by then.
//
// Without strace, root or whatever else a test needs, it is skipped; with CI
// set it fails.
package crash
