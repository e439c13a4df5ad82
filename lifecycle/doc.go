// Package lifecycle knows when images were used.
//
// [Activity] is what a registry writes down of pulls, and [Buffer] is what it
// puts in front of that, so that not each pull is a write. Package mempulls keeps
// pulls in memory; package lifecycletest checks an implementation.
package lifecycle
