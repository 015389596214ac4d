// Package memory bounds what a process remembers between requests. A map whose
// keys callers choose (tenants, merchants, keys, addresses) must be one of
// these, or a caller can fill the machine's memory. It must never hold what
// exists nowhere else: any entry may be gone at any time.
package memory

import lru "github.com/hashicorp/golang-lru/v2"

// New returns a cache of at most size entries that forgets the least recently
// used. It is safe for concurrent use. size must be positive.
func New[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // our own constants are wrong
	}
	return c
}
