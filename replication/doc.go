// Package replication copies between registries: what Amazon ECR does by rules,
// and what copying tools do by hand.
//
// A [Source] is read, a [Target] is written, and both are structs of small
// interfaces. So a store in this process, a registry over HTTP (examples/store/remote)
// and a cache are interchangeable, and a test needs none of them.
package replication
