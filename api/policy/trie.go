package policy

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// trie is a persistent hash map: put and remove return a new one that shares
// all but the path to the key. With 100,000 keys a change copies about four
// nodes of at most 32 slots.
//
// An edit token lets one run of changes write in place into the nodes that it
// made itself, so that a large page does not copy the same node again and again.
type trie[V any] struct {
	seed maphash.Seed
	root *node[V]
	size int
}

// edit marks the nodes of one run of changes. It has a field because pointers
// to values without size may be equal.
type edit struct{ _ byte }

// node has one slot for each set bit of bitmap, in the order of the bits.
type node[V any] struct {
	owner  *edit
	bitmap uint32
	slots  []slot[V]
}

// slot is either a child, or a leaf. Keys whose 64 hash bits are equal share a
// leaf and stand in next.
type slot[V any] struct {
	child *node[V]
	leaf  *leaf[V]
}

type leaf[V any] struct {
	hash  uint64
	key   string
	value V
	next  *leaf[V]
}

const (
	slotBits = 5
	slotMask = 1<<slotBits - 1
)

func newTrie[V any]() trie[V] {
	return trie[V]{seed: maphash.MakeSeed(), root: &node[V]{}}
}

func (t trie[V]) get(key string) (V, bool) {
	hash := maphash.String(t.seed, key)
	n := t.root
	for shift := uint(0); n != nil; shift += slotBits {
		i, ok := n.find(hash, shift)
		if !ok {
			break
		}
		for l := n.slots[i].leaf; l != nil; l = l.next {
			if l.hash == hash && l.key == key {
				return l.value, true
			}
		}
		n = n.slots[i].child
	}
	var none V
	return none, false
}

func (t trie[V]) put(e *edit, key string, value V) trie[V] {
	_, had := t.get(key)
	l := &leaf[V]{hash: maphash.String(t.seed, key), key: key, value: value}
	t.root = t.root.put(e, l, 0)
	if !had {
		t.size++
	}
	return t
}

func (t trie[V]) remove(e *edit, key string) trie[V] {
	if _, had := t.get(key); !had {
		return t
	}
	t.root = t.root.remove(e, maphash.String(t.seed, key), key, 0)
	t.size--
	return t
}

// all yields the values in no particular order.
func (t trie[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) { t.root.each(yield) }
}

func (n *node[V]) each(yield func(V) bool) bool {
	for _, s := range n.slots {
		if s.child != nil && !s.child.each(yield) {
			return false
		}
		for l := s.leaf; l != nil; l = l.next {
			if !yield(l.value) {
				return false
			}
		}
	}
	return true
}

// find returns the slot for a hash and whether it is taken.
func (n *node[V]) find(hash uint64, shift uint) (index int, taken bool) {
	bit := uint32(1) << (hash >> shift & slotMask)
	return bits.OnesCount32(n.bitmap & (bit - 1)), n.bitmap&bit != 0
}

// own returns n itself where this run made it, else a copy.
func (n *node[V]) own(e *edit) *node[V] {
	if e != nil && n.owner == e {
		return n
	}
	return &node[V]{owner: e, bitmap: n.bitmap, slots: slices.Clone(n.slots)}
}

func (n *node[V]) put(e *edit, l *leaf[V], shift uint) *node[V] {
	n = n.own(e)
	i, taken := n.find(l.hash, shift)
	if !taken {
		n.bitmap |= 1 << (l.hash >> shift & slotMask)
		n.slots = slices.Insert(n.slots, i, slot[V]{leaf: l})
		return n
	}
	old := n.slots[i]
	switch {
	case old.child != nil:
		n.slots[i] = slot[V]{child: old.child.put(e, l, shift+slotBits)}
	case old.leaf.hash == l.hash:
		l.next = old.leaf.without(l.key)
		n.slots[i] = slot[V]{leaf: l}
	default: // two hashes meet: move both one level down
		down := (&node[V]{owner: e}).put(e, old.leaf, shift+slotBits)
		n.slots[i] = slot[V]{child: down.put(e, l, shift+slotBits)}
	}
	return n
}

func (n *node[V]) remove(e *edit, hash uint64, key string, shift uint) *node[V] {
	n = n.own(e)
	i, _ := n.find(hash, shift)
	if child := n.slots[i].child; child != nil {
		child = child.remove(e, hash, key, shift+slotBits)
		if len(child.slots) > 0 {
			n.slots[i] = slot[V]{child: child}
			return n
		}
	} else if rest := n.slots[i].leaf.without(key); rest != nil {
		n.slots[i] = slot[V]{leaf: rest}
		return n
	}
	n.bitmap &^= 1 << (hash >> shift & slotMask)
	n.slots = slices.Delete(n.slots, i, i+1)
	return n
}

// without copies the chain of leaves of one hash, less one key. It is one leaf
// long but for a collision of 64 bits.
func (l *leaf[V]) without(key string) *leaf[V] {
	if l == nil {
		return nil
	}
	rest := l.next.without(key)
	if l.key == key {
		return rest
	}
	return &leaf[V]{hash: l.hash, key: l.key, value: l.value, next: rest}
}
