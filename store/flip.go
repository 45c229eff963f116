package store

import "context"

// BeginFlip asks for the account's sessions on the source to be closed at a quiet
// moment: it is FlipClosing, which is published. Whoever has the sessions answers
// with Hold.
func (c *Claim) BeginFlip(ctx context.Context) error {
	return c.update(ctx, nil, "flipping = $3", FlipClosing)
}

// EndFlip takes a flip that was begun back: logins go to the source again. Release
// and Flip do the same.
func (c *Claim) EndFlip(ctx context.Context) error {
	return c.update(ctx, nil, "flipping = $3", NotFlipping)
}

// Hold answers BeginFlip: from now on every login waits. It is called while the
// account's sessions can send nothing, and they are closed only if it returns
// true; false means that the flip was taken back meanwhile.
func (s *Store) Hold(ctx context.Context, id int64) (held bool, err error) {
	err = s.write(ctx, func(x *tx) error {
		n, err := x.exec("UPDATE accounts SET flipping = $1 WHERE id = $2 AND flipping = $3", FlipHeld, id, FlipClosing)
		if err != nil || n == 0 {
			return err
		}
		held = true
		_, err = x.written(id)
		return err
	})
	return held && err == nil, err
}
