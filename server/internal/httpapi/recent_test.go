package httpapi

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatIsDearToMakeRestsFourTimesAsLongAsItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recent[int]
		made := 0
		dear := func() (int, error) {
			time.Sleep(time.Second)
			made++
			return made, nil
		}
		for range 3 {
			if got, err := r.get("a", dear); err != nil || got != 1 {
				t.Errorf("got %d, %v, want the first", got, err)
			}
		}
		time.Sleep(4*time.Second - 1)
		if got, _ := r.get("a", dear); got != 1 {
			t.Error("it was made anew before it had rested")
		}
		time.Sleep(time.Nanosecond)
		if got, _ := r.get("a", dear); got != 2 {
			t.Error("it was not made anew")
		}
		time.Sleep(time.Minute)
		if _, _ = r.get("b", dear); len(r.answers) != 1 {
			t.Errorf("%d answers are kept, want the new one only", len(r.answers))
		}
		trouble := errors.New("busy")
		if _, err := r.get("c", func() (int, error) { return 0, trouble }); !errors.Is(err, trouble) {
			t.Errorf("got %v", err)
		}
		if got, err := r.get("c", dear); err != nil || got != 4 {
			t.Errorf("after a trouble got %d, %v", got, err)
		}
	})
}
