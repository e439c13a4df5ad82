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
// # As ECR does it
//
// A [Configuration] says which repositories go to which registries, and is read strictly
// by [Validation.Parse]. A [Replicator] makes jobs of what is committed ([manifest.Outbox]),
// keeps them in a [Queue], and does them: at least once, in any order, with the
// same end. [Replicator.Status] is ECR's DescribeImageReplicationStatus, and a [Board] what is
// dead, and can be replayed, and which destinations are paused. For one process memqueue is a
// Queue in memory and examples/store/boltstore a durable one; for many there is
// examples/store/riverqueue on PostgreSQL.
//
// A push is copied once: what came by a copy ([manifest.CauseReplication]) starts no
// other, so the Pusher and the Deleter of a Target in this process have that cause, and a server
// gives it to those who replicate to it (Handler.Cause of package wharfage).
//
// # Testing an implementation
//
// Package replicationtest checks a Source and a Target, and queuetest a Queue.
package replication
