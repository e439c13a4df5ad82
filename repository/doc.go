// Package repository says which repositories there are and what is set for each:
// names, settings, creation templates and quotas, in the terms of Amazon ECR.
//
// To a manifest or blob store a repository needs no creation: one without
// content is empty. A [Registry] is for those who want more: repositories that
// are made by somebody, or by the first push below a prefix that a [Template]
// names, and that have settings from then on. wharfage.Handler takes one.
//
// Settings are kept in a [Store]; package memrepository has one in memory.
//
// # Testing
//
// Package repositorytest checks a Store against its contract.
package repository
