package pullthrough

import (
	"context"
	"net/http"
	"strings"
)

type (
	warnKey  struct{}
	forceKey struct{}
	localKey struct{}
)

// WithWarnings returns a context whose requests tell warn when they are answered with a copy,
// because upstream could not be asked. It runs on the goroutine of the request, before its answer.
func WithWarnings(ctx context.Context, warn func(text string)) context.Context {
	return context.WithValue(ctx, warnKey{}, warn)
}

// ForceRefresh returns a context whose requests ask upstream however fresh a copy
// is. An upstream that is to be left alone is not asked.
func ForceRefresh(ctx context.Context) context.Context {
	return context.WithValue(ctx, forceKey{}, true)
}

// LocalOnly returns a context whose requests see what is here: what a push asks about
// tags must not depend on an upstream. What a push needs is fetched all the same.
func LocalOnly(ctx context.Context) context.Context {
	return context.WithValue(ctx, localKey{}, true)
}

func forced(ctx context.Context) bool { return ctx.Value(forceKey{}) != nil }

func warn(ctx context.Context, text string) {
	if f, ok := ctx.Value(warnKey{}).(func(string)); ok {
		f(text)
	}
}

// Middleware gives answers that come from an old copy a Warning header
// (distribution-spec, "Warnings"), requests with Cache-Control: no-cache a
// [ForceRefresh] (RFC 9111 section 5.2.1.4), and those that change something a [LocalOnly].
func Middleware(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := WithWarnings(r.Context(), func(text string) {
			const most = 1000
			text = strings.Map(func(c rune) rune {
				if c < ' ' || c > '~' || c == '"' || c == '\\' {
					return '\''
				}
				return c
			}, text)
			w.Header().Add("Warning", `299 - "`+text[:min(len(text), most)]+`"`)
		})
		for _, v := range r.Header.Values("Cache-Control") {
			for directive := range strings.SplitSeq(v, ",") {
				if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
					ctx = ForceRefresh(ctx)
				}
			}
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			ctx = LocalOnly(ctx)
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}
