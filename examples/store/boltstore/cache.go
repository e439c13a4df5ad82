package boltstore

import "sync"

// cache keeps what was used lately, by keys whose bytes never change.
type cache struct {
	most int // bytes

	mu       sync.Mutex
	now, old map[string]string // what is used goes from old to now; when now has half of most, it becomes old
	size     int               // of now
}

func (c *cache) get(key string) (string, bool) {
	if c.most <= 0 {
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.now[key]
	if !ok {
		if v, ok = c.old[key]; ok {
			c.add(key, v)
		}
	}
	return v, ok
}

func (c *cache) put(key, value string) {
	if len(value) > c.most/8 { // would push out too much
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.now[key]; !ok {
		c.add(key, value)
	}
}

func (c *cache) add(key, value string) {
	const overhead = 100 // about what an entry takes beside its bytes
	if c.now == nil || c.size >= c.most/2 {
		c.old, c.now, c.size = c.now, map[string]string{}, 0
	}
	c.now[key] = value
	c.size += len(value) + overhead
}
