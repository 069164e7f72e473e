package policy

import (
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func contents(t trie[int]) map[int]int {
	seen := map[int]int{}
	for v := range t.all() {
		seen[v]++
	}
	return seen
}

// TestATrieIsAMapThatKeepsItsPast compares every version of a trie with a map
// that is copied whole, long after later versions were made from it.
func TestATrieIsAMapThatKeepsItsPast(t *testing.T) {
	type version struct {
		trie trie[int]
		want map[string]int
	}
	rapid.Check(t, func(r *rapid.T) {
		key := rapid.Custom(func(r *rapid.T) string { return fmt.Sprintf("k%d", rapid.IntRange(0, 200).Draw(r, "key")) })
		history := []version{{trie: newTrie[int](), want: map[string]int{}}}
		for range rapid.IntRange(1, 12).Draw(r, "versions") {
			last := history[rapid.IntRange(0, len(history)-1).Draw(r, "from")]
			next := version{trie: last.trie, want: map[string]int{}}
			for k, v := range last.want {
				next.want[k] = v
			}
			run := &edit{}
			for i := range rapid.IntRange(0, 60).Draw(r, "changes") {
				k := key.Draw(r, "key")
				if rapid.IntRange(0, 2).Draw(r, "kind") == 0 {
					next.trie = next.trie.remove(run, k)
					delete(next.want, k)
					continue
				}
				value := len(history)*1000 + i
				next.trie = next.trie.put(run, k, value)
				next.want[k] = value
			}
			history = append(history, next)
		}
		for i, v := range history {
			if v.trie.size != len(v.want) {
				r.Fatalf("version %d has size %d, want %d", i, v.trie.size, len(v.want))
			}
			values := map[int]int{}
			for k, want := range v.want {
				values[want]++
				if got, ok := v.trie.get(k); !ok || got != want {
					r.Fatalf("version %d: %s is %d, %v; want %d", i, k, got, ok, want)
				}
			}
			for n := range 201 {
				k := fmt.Sprintf("k%d", n)
				if _, ok := v.trie.get(k); ok != hasKey(v.want, k) {
					r.Fatalf("version %d: %s found: %v", i, k, ok)
				}
			}
			if diff := cmp.Diff(values, contents(v.trie)); diff != "" {
				r.Fatalf("version %d walks other values:\n%s", i, diff)
			}
		}
	})
}

func hasKey(m map[string]int, k string) bool {
	_, ok := m[k]
	return ok
}

// TestKeysWhoseHashesMeetAreKeptApart builds the collisions that no test would
// meet by chance: equal in all 64 bits, and equal in all but the last.
func TestKeysWhoseHashesMeetAreKeptApart(t *testing.T) {
	put := func(root *node[int], run *edit, hash uint64, key string, value int) *node[int] {
		return root.put(run, &leaf[int]{hash: hash, key: key, value: value}, 0)
	}
	for _, run := range []*edit{nil, {}} {
		root := &node[int]{}
		root = put(root, run, 7, "a", 1)
		root = put(root, run, 7, "b", 2)
		root = put(root, run, 7, "a", 3)
		root = put(root, run, 7|1<<63, "c", 4)
		before := root
		root = root.remove(nil, 7, "b", 0)
		got := trie[int]{seed: maphash.MakeSeed(), root: root}
		if diff := cmp.Diff(map[int]int{3: 1, 4: 1}, contents(got)); diff != "" {
			t.Errorf("after removing one of three:\n%s", diff)
		}
		got.root = before
		if diff := cmp.Diff(map[int]int{2: 1, 3: 1, 4: 1}, contents(got)); diff != "" {
			t.Errorf("the version before changed:\n%s", diff)
		}
		root = root.remove(nil, 7, "a", 0).remove(nil, 7|1<<63, "c", 0)
		if len(root.slots) != 0 || root.bitmap != 0 {
			t.Errorf("emptied, the root still has %d slots, bitmap %b", len(root.slots), root.bitmap)
		}
	}
}
