package memrepository_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
	"github.com/wharfage/wharfage/repository/repositorytest"
)

func TestStore(t *testing.T) {
	repositorytest.TestStore(t, func(testing.TB) repository.Store { return new(memrepository.Store) })
}

func ExampleStore() {
	ctx := context.Background()
	r := &repository.Registry{Store: new(memrepository.Store)}
	if _, err := r.Create(ctx, "team/app", repository.Settings{TagMutability: "IMMUTABLE"}); err != nil {
		fmt.Println(err)
	}
	for have, err := range r.Store.List(ctx, "") {
		fmt.Println(have.Name, have.TagMutability, err)
	}
	// Output: team/app IMMUTABLE <nil>
}
