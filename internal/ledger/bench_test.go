package ledger

import (
	"strconv"
	"testing"
)

// What a write asks of the database and of this process besides the call: T1
// before it, T2 after it, each one round trip and one commit. The server of the
// tests doesn't wait for its disk.
func BenchmarkWrite(b *testing.B) {
	w := setup(b)
	l := w.ledgers[0]
	b.Run("T1", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			w.began(b, "1"+strconv.Itoa(n))
		}
	})
	b.Run("T1 and T2", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			place := "2" + strconv.Itoa(n)
			if err := l.settle(b.Context(), w.began(b, place), executed(FromResponse, place), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
