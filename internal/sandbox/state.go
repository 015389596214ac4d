package sandbox

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// The state is a set of tables. Every change is appended to one file, one line a commit, before the
// reply that tells of it leaves, so that a kill -9 can cut off at most a line nobody was told about.
// The file is rewritten when it is opened.

// state is guarded by Server.mu.
type state struct {
	meta
	accounts  table[account]
	auths     table[authorization] // by appid
	tokens    table[token]         // by value
	tickets   table[ticket]        // by value
	preauths  table[preauth]       // by code
	codes     table[authCode]      // by code
	mapPOIs   table[mapPOI]        // by id
	stores    table[store]         // by poi id
	legacy    table[legacyStore]   // by poi id
	audits    table[audit]         // by kind/id
	media     table[media]         // by media id
	goods     table[goods]         // by goods id
	pushes    table[push]          // by id
	usage     table[usage]         // by appid, path and day
	truthIDs  table[truthID]       // by number
	effects   table[effect]        // by number
	byName    map[string]rowLoader
	dirty     []change
	dirtyKeys map[[2]string]int
	path      string
	file      *os.File
}

// meta is the one row without a table of its own.
type meta struct {
	Boots       int
	ClockOffset time.Duration
	Component   component
	Settings    settings
	Hold        bool
	LastID      map[string]int64 // last number issued, by sequence
}

type change struct {
	Table string `json:"t"`
	Key   string `json:"k,omitempty"`
	Row   any    `json:"v,omitempty"` // nil deletes
}

type rowLoader interface {
	load(key string, raw json.RawMessage) error
	each(func(key string, row any))
}

type table[T any] struct {
	name string
	st   *state
	rows map[string]*T
}

func (t *table[T]) open(st *state, name string) {
	*t = table[T]{name: name, st: st, rows: map[string]*T{}}
	st.byName[name] = t
}

// put stores the row, or records that it was changed in place.
func (t *table[T]) put(key string, row *T) {
	t.rows[key] = row
	t.st.mark(change{Table: t.name, Key: key, Row: row})
}

func (t *table[T]) get(key string) *T { return t.rows[key] }

func (t *table[T]) del(key string) {
	if _, ok := t.rows[key]; ok {
		delete(t.rows, key)
		t.st.mark(change{Table: t.name, Key: key})
	}
}

// sorted is the rows that keep accepts, by less.
func (t *table[T]) sorted(keep func(*T) bool, less func(a, b *T) int) []*T {
	var out []*T
	for _, r := range t.rows {
		if keep == nil || keep(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, less)
	return out
}

func (t *table[T]) load(key string, raw json.RawMessage) error {
	if raw == nil {
		delete(t.rows, key)
		return nil
	}
	row := new(T)
	if err := json.Unmarshal(raw, row); err != nil {
		return err
	}
	t.rows[key] = row
	return nil
}

func (t *table[T]) each(f func(string, any)) {
	for k, r := range t.rows {
		f(k, r)
	}
}

func (st *state) clear() {
	boots := st.Boots
	st.meta = meta{Boots: boots, LastID: map[string]int64{}}
	st.byName = map[string]rowLoader{}
	st.dirty, st.dirtyKeys = nil, map[[2]string]int{}
	st.accounts.open(st, "account")
	st.auths.open(st, "authorization")
	st.tokens.open(st, "token")
	st.tickets.open(st, "ticket")
	st.preauths.open(st, "preauth")
	st.codes.open(st, "code")
	st.mapPOIs.open(st, "map_poi")
	st.stores.open(st, "store")
	st.legacy.open(st, "legacy_store")
	st.audits.open(st, "audit")
	st.media.open(st, "media")
	st.goods.open(st, "goods")
	st.pushes.open(st, "push")
	st.usage.open(st, "usage")
	st.truthIDs.open(st, "truth_id")
	st.effects.open(st, "effect")
}

func (st *state) fresh() bool { return len(st.accounts.rows) == 0 }

func (st *state) saveMeta() { st.mark(change{Table: "meta", Row: &st.meta}) }

// mark queues a change for the next commit; of two changes of one row the later counts.
func (st *state) mark(c change) {
	key := [2]string{c.Table, c.Key}
	if i, ok := st.dirtyKeys[key]; ok {
		st.dirty[i] = c
		return
	}
	st.dirtyKeys[key] = len(st.dirty)
	st.dirty = append(st.dirty, c)
}

func (st *state) commit() error {
	if len(st.dirty) == 0 {
		return nil
	}
	defer func() {
		st.dirty = st.dirty[:0]
		clear(st.dirtyKeys)
	}()
	if st.file == nil {
		return nil
	}
	line, err := json.Marshal(st.dirty)
	if err != nil {
		return err
	}
	_, err = st.file.Write(append(line, '\n'))
	return err
}

func openState(path string) (*state, error) {
	st := &state{path: path}
	st.clear()
	if path == "" {
		return st, nil
	}
	if err := st.read(); err != nil {
		return nil, err
	}
	return st, st.rewrite()
}

func (st *state) read() error {
	f, err := os.Open(st.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what stands behind the last line end was never answered for
		}
		if err != nil {
			return err
		}
		var changes []struct {
			Table string          `json:"t"`
			Key   string          `json:"k"`
			Row   json.RawMessage `json:"v"`
		}
		if err := json.Unmarshal(line, &changes); err != nil {
			return fmt.Errorf("%s line %d: %w", st.path, n, err)
		}
		for _, c := range changes {
			t, ok := st.byName[c.Table]
			switch {
			case c.Table == "meta":
				st.meta = meta{LastID: map[string]int64{}}
				err = json.Unmarshal(c.Row, &st.meta)
			case ok:
				err = t.load(c.Key, c.Row)
			default:
				err = errors.New("unknown table " + c.Table)
			}
			if err != nil {
				return fmt.Errorf("%s line %d: %w", st.path, n, err)
			}
		}
	}
}

// rewrite replaces the file by one line that holds the whole state, and keeps it open for appending.
func (st *state) rewrite() error {
	tmp := st.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // the operator's own file
	if err != nil {
		return err
	}
	all := []change{{Table: "meta", Row: &st.meta}}
	for name, t := range st.byName {
		t.each(func(key string, row any) { all = append(all, change{Table: name, Key: key, Row: row}) })
	}
	line, err := json.Marshal(all)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	if err == nil {
		err = os.Rename(tmp, st.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if st.file != nil {
		err = st.file.Close()
	}
	st.file = f
	return err
}

func (st *state) rewriteIfFile() error {
	if st.file == nil {
		return nil
	}
	return st.rewrite()
}

func (st *state) close() error {
	if st.file == nil {
		return nil
	}
	err := st.file.Close()
	st.file = nil
	return err
}

// next gives the next number of a sequence that starts at first and rises by one.
func (st *state) next(sequence string, first int64) int64 {
	n := st.LastID[sequence] + 1
	if n < first {
		n = first
	}
	st.LastID[sequence] = n
	st.saveMeta()
	return n
}

func bySeq[T interface{ seq() int64 }](a, b T) int { return cmp.Compare(a.seq(), b.seq()) }
