// Package aliasresolve finds out under which further addresses a mailbox got
// its mail, from the headers of the messages in it. It is pure: octets and
// tallies in, decisions out. It opens no file and asks no server.
//
// Three steps lead from a message to an alias:
//
//   - A [Scanner] is fed with each message as it is copied. It looks at the
//     header only, and gives [Sighting]s: which address which headers showed.
//   - A [Collector] counts the messages of one mailbox by what they showed. Its
//     [Tally] is plain data for the store.
//   - [Decide] says from the tally, and from what is known of the other
//     mailboxes, which addresses this mailbox may claim, and why it may not
//     claim the others.
//
// # What is evidence
//
// In mode Extended, that mail was delivered to this mailbox: Delivered-To,
// X-Original-To, Envelope-To, X-Envelope-To, and the for clause of Received. In
// mode Standard, that its user wrote as the address: From, in a folder with his
// sent mail or in a message to himself that came back to him. To and Cc are
// counted to be shown, and claim nothing: anybody may write anything there.
//
// A header that could speak of another mailbox says nothing:
//
//   - One that names several addresses, as Exim's Envelope-to does for a batch.
//   - All trace headers of sent mail: a copy that a server keeps for the sender
//     has the recipient in its Received.
//   - What stands below the mark of a forwarder (Resent-*, X-Forwarded-For,
//     X-Sieve-Redirected-From) or below a mailing list's own address: trace
//     headers are prepended, so this is how the message reached somebody else
//     before.
//
// # What is never claimed
//
// Whatever is a mailing list, somebody's login, another's in the
// administrator's list of accounts, shown by another mailbox as well, or another
// account's alias; each with its [Reason]. Between two mailboxes this is
// symmetric: an address that both show is withdrawn from both, however often
// each shows it. Without the list of accounts nothing is more than proposed.
//
// # Addresses
//
// They are compared in a normal form, see [Normalise]. Only plain ones count,
// those which may also be login names: characters by which servers mean
// somebody else's mailbox, such as % and !, are in no claim.
//
// net/mail is not used, because it gives up a whole list for one mistake in it:
// display names with raw 8-bit octets or an unknown character set, a stray
// comma, a semicolon between addresses. A fuzz test holds this package's parser
// to finding what net/mail finds wherever net/mail finds anything.
package aliasresolve
