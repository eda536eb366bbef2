// From the camera's axes to the room: lib/camera.py's camera_to_world, the lowest joint on the floor.

// pose: [x right, y down, z away] each; pitch: degrees the camera looks down -> [x right, y away, z up].
export function toRoom(pose, pitch) {
  const cos = Math.cos(pitch * Math.PI / 180), sin = Math.sin(pitch * Math.PI / 180);
  const world = pose.map(([x, y, z]) => [x, -sin * y + cos * z, -cos * y - sin * z]);
  const floor = Math.min(...world.map(([, , z]) => z));
  return world.map(([x, y, z]) => [x, y, z - floor]);
}
