package fetch

import (
	"container/list"
	"sync"
)

// Memory keeps what was used last, within a bound. Values are not modified. It is safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	bound   int
	weight  int
	entries map[any]*list.Element
	order   list.List // of *entry, the last used first
}

type entry struct {
	key, value any
	weight     int
}

// NewMemory makes a memory for values whose weights sum up to bound at the most.
func NewMemory(bound int) *Memory {
	return &Memory{bound: bound, entries: map[any]*list.Element{}}
}

// Get returns what is remembered, or nil.
func (m *Memory) Get(k any) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[k]
	if !ok {
		return nil
	}
	m.order.MoveToFront(e)
	return e.Value.(*entry).value
}

// Put remembers value instead of what there is. One that is heavier than the bound is not remembered.
func (m *Memory) Put(k, value any, weight int) {
	m.Replace(k, value, weight, func(any) bool { return true })
}

// Replace is Put where better says so of what there is.
func (m *Memory) Replace(k, value any, weight int, better func(old any) bool) {
	added := &entry{key: k, value: value, weight: weight}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[k]; ok {
		if !better(e.Value.(*entry).value) {
			return
		}
		m.drop(e)
	}
	if added.weight > m.bound {
		return
	}
	m.entries[k] = m.order.PushFront(added)
	m.weight += added.weight
	for m.weight > m.bound {
		m.drop(m.order.Back())
	}
}

func (m *Memory) drop(e *list.Element) {
	old := m.order.Remove(e).(*entry)
	delete(m.entries, old.key)
	m.weight -= old.weight
}
