package imapwire

import "context"

// Leave leaves the mailbox that Examine has opened (UNSELECT, RFC 3691, or CLOSE,
// which removes nothing from what is open for reading only). It is not for one that
// Select has opened.
func (c *Conn) Leave(ctx context.Context) error {
	command := "CLOSE"
	if c.caps["UNSELECT"] {
		command = "UNSELECT"
	}
	_, err := c.do(ctx, command, nil, nil)
	return err
}
