//go:build !linux

package boltstore

// mapped does nothing here: it is for Linux, which counts a mapped file as memory of the process.
type mapped struct{}

func (*mapped) trim(*tx, int) {}
