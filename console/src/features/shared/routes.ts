/** Destinations of routes in one word: a block, or the id of a prefix list. */
import type { Route, RouteDestination } from '../../api/types';

export function destinationOf({ destination_prefix_list_id, destination_cidr }: Route): string {
  return destination_prefix_list_id ?? destination_cidr ?? '';
}

export function toDestination(word: string): RouteDestination {
  const text = word.trim();
  return text.startsWith('pl-') ? { destination_prefix_list_id: text } : { destination_cidr: text };
}
