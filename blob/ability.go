package blob

// Optional abilities of a store are interfaces of their own: [Mounter],
// [Rereader], [Locator], [Redirector], [Catalog], [Guarded], [Promiser],
// [SessionLister], [Sweeper]. A store has one by having its methods.

// Able is implemented by stores that wrap another and do not know beforehand
// which abilities that has. Methods would promise all of them for any store.
type Able interface {
	// Abilities returns values that have abilities, in any number. It is asked
	// for those that the store itself does not have.
	Abilities() []any
}

// As returns the ability T of a store: the store itself, or, if that is [Able],
// one of its Abilities. It is how this module looks for abilities.
func As[T any](store any) (T, bool) {
	t, ok := store.(T)
	if ok {
		return t, true
	}
	if a, isAble := store.(Able); isAble {
		for _, v := range a.Abilities() {
			if t, ok = v.(T); ok {
				return t, true
			}
		}
	}
	return t, false
}
