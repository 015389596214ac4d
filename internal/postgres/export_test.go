package postgres

// Waiting is how many batches wait for a lane, in a database without shares.
func Waiting(db *DB) int {
	g := &db.gatherings[0]
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}
