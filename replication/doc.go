// Package replication copies between registries: what Amazon ECR does by rules,
// and what copying tools do by hand.
//
// A [Source] is read, a [Target] is written, and both are structs of small
// interfaces. So a store in this process ([LocalSource], [LocalTarget]), a registry over
// HTTP (examples/store/remote) and a cache are interchangeable, and a test needs none of them.
//
// A [Copier] copies one image with all that belongs to it ([Copier.Copy]), or makes one
// registry show what another does ([Copier.Sync]). What it leaves out, what it had to try
// again and how far it is are values for the caller: there is no log.
//
// # Testing an implementation
//
// Package replicationtest checks a Source and a Target.
package replication
