package repository_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

// Repositories below team/ are made by the first push, with immutable tags.
func ExampleRegistry_Ensure() {
	r := &repository.Registry{
		Store: new(memrepository.Store),
		Templates: repository.Static(repository.Template{
			Prefix:     "team",
			AppliedFor: []repository.Cause{repository.CausePush},
			Settings:   repository.Settings{TagMutability: "IMMUTABLE"},
		}),
	}
	have, made, err := r.Ensure(context.Background(), "team/app", repository.CausePush, nil)
	fmt.Println(have.Name, have.TagMutability, made, err)
	_, _, err = r.Ensure(context.Background(), "app", repository.CausePush, nil)
	fmt.Println(err)
	// Output:
	// team/app IMMUTABLE true <nil>
	// create repository app: repository not found, and no template lets a push make it
}

func ExampleRegistry_Update() {
	ctx := context.Background()
	r := &repository.Registry{Store: new(memrepository.Store)}
	if _, err := r.Create(ctx, "team/app", repository.Settings{}); err != nil {
		fmt.Println(err)
	}
	_, err := r.Update(ctx, "team/app", func(s *repository.Settings) error {
		s.LifecyclePolicy = `{"rules":[]}`
		return nil
	})
	fmt.Println(err)
	// Output: update repository team/app: lifecyclePolicy: is to be a lifecycle policy: invalid lifecycle policy: /rules: rules_count: is 0 rules, allowed is: 1 to 50 rules
}

func ExampleNames_Check() {
	err := repository.ECRNames.Check("team/-app")
	if e, ok := errors.AsType[*repository.NameError](err); ok {
		fmt.Println(e.Fault, "at", e.At)
	}
	fmt.Println(err)
	// Output:
	// invalid_separator at 4
	// repository "team/-app": invalid name: invalid separator at byte 4: one of . _ __ or dashes stands between letters or digits
}

func ExampleForCreation() {
	templates := []repository.Template{
		{Prefix: "prod", AppliedFor: []repository.Cause{repository.CausePush}},
		{Prefix: "prod/web", AppliedFor: []repository.Cause{repository.CauseReplication}},
	}
	t, create := repository.ForCreation(templates, "prod/web/shop", repository.CausePush)
	fmt.Println(t.Prefix, create)
	_, create = repository.ForCreation(templates, "prod", repository.CausePush)
	fmt.Println(create)
	// Output:
	// prod true
	// false
}
