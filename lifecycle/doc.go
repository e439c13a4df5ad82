// Package lifecycle knows when images were used.
//
// [Activity] is what a registry writes down of pulls. Package mempulls keeps it
// in memory; package lifecycletest checks an implementation.
package lifecycle
