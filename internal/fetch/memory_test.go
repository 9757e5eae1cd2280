package fetch

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMemory remembers more than there is room for.
func TestMemory(t *testing.T) {
	m := NewMemory(10 << 10)
	for i := range 100 {
		m.Put(i, "value", 1<<10)
		require.Equal(t, "value", m.Get(0), "what is asked for again and again stays")
	}
	assert.LessOrEqual(t, m.weight, m.bound)
	assert.Len(t, m.entries, 10)
	assert.Nil(t, m.Get(50))
	assert.NotNil(t, m.Get(99))
	m.Put(1, "large", 20<<10)
	assert.Nil(t, m.Get(1), "what is larger than all the room")
	assert.NotNil(t, m.Get(99), "drives nobody out")

	m.Replace(99, "other", 1, func(old any) bool { return old != "value" })
	assert.Equal(t, "value", m.Get(99))
	m.Replace(99, "other", 1, func(old any) bool { return old == "value" })
	assert.Equal(t, "other", m.Get(99))
}
